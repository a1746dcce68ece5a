"""The shipped files: equal to the schema, complete, and commented line by line."""

from __future__ import annotations

import re

import pytest

from codex_ml.config.files import compose_files, read_yaml
from codex_ml.config.messages import describe_schema, section_names, valid_keys
from codex_ml.config.paths import packaged_directory
from codex_ml.config.validate import validate_file

CONFIGS = packaged_directory("configs")
FILES = sorted(file for file in CONFIGS.rglob("*.yaml") if "policies" not in file.parts)
VALUE_LINE = re.compile(r"^\s*(-|[a-z_0-9]+:)")


def test_default_tree_values_equal_the_schema():
    """The commented files and the schema say the same, for every key of the schema and for no other."""
    tree = compose_files("default", (CONFIGS,), (), CONFIGS, CONFIGS, None)
    assert {key: leaf.value for key, leaf in tree.leaves()} == {field.key: field.default for field in describe_schema()}


def test_default_tree_has_a_directory_for_every_section():
    """Every section can be chosen by file."""
    assert all((CONFIGS / name).is_dir() for name in section_names())
    assert (CONFIGS / "adapter" / "none.yaml").is_file()
    assert (CONFIGS / "tracking" / "mlflow.yaml").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONFIGS).as_posix())
def test_shipped_file_every_line_is_commented_with_an_override(file):
    """Each line that sets something says what it is and shows how to set it otherwise."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        assert len(line) <= 120, f"{file.name}:{number} is too long"
        if not VALUE_LINE.match(line):
            assert line.startswith("#"), f"{file.name}:{number} is neither a value nor a comment"
            continue
        comment = line.partition(" # ")[2]
        if line.startswith("defaults:") or comment.strip() == "":
            assert comment, f"{file.name}:{number} has no comment"
            continue
        assert "override:" in comment, f"{file.name}:{number} shows no override"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONFIGS).as_posix())
def test_shipped_file_overrides_shown_name_keys_that_exist(file):
    """An override in a comment is one that works: its key is in the schema, or its file in the tree."""
    keys = {field.key for field in describe_schema()}
    for line in file.read_text(encoding="utf-8").splitlines():
        shown = line.partition("override: ")[2]
        for key, value in re.findall(r"(?<![\w.])([a-z_0-9]+(?:\.[a-z_0-9]+)*)=([^ ,;)]*)", shown):
            assert key in keys or (CONFIGS / key / f"{value}.yaml").is_file(), f"{file.name}: {key}={value}"


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.name != "default.yaml" or file.parent != CONFIGS],
    ids=lambda file: file.stem,
)
def test_shipped_file_validated_by_path_is_valid(file):
    """Every file but the root, which names no model and no data, is valid by itself."""
    valid = validate_file(file)
    assert valid.section == (None if file.parent.name == "examples" else file.parent.name)


def test_shipped_group_file_keys_belong_to_its_section():
    """A file in a group's directory holds keys of that section."""
    for file in FILES:
        if file.parent.name in section_names():
            assert set(read_yaml(file)) - {"defaults"} <= set(valid_keys(file.parent.name)), file
