"""The configurations that come with the toolkit are listed, and a copy of one works where it is put."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.paths import PATH_FIELDS, packaged_directory
from codex_ml.config.shipped import ShippedConfig, copy_shipped, find_shipped, list_shipped
from codex_ml.config.validate import validate_file
from codex_ml.errors import UserError

SHIPPED = list_shipped()


def test_list_shipped_names_whole_ones_first_and_no_policy() -> None:
    """Every file of the tree by the name a command takes, each with what it says of itself."""
    names = [config.name for config in SHIPPED]
    assert names[:2] == ["default", "examples/minimal"]
    assert {"adapter/lora", "model/local_directory"} <= set(names)
    assert not [name for name in names if "policies" in name]
    assert all(config.summary and not config.summary.startswith("@package") for config in SHIPPED)


def test_find_shipped_unknown_says_what_was_meant() -> None:
    """A misspelt name and one without its directory are both met with a suggestion."""
    assert find_shipped("examples/minimal.yaml") == find_shipped("examples/minimal")
    for wrong in ("examples/minimall", "minimal"):
        with pytest.raises(UserError, match=f"there is no config {wrong}") as caught:
            find_shipped(wrong)
        assert "did you mean examples/minimal?" in caught.value.fix


@pytest.mark.parametrize("place", ["mine", "a (1), b=c", "données/ü", "model", "deep/er/still"])
@pytest.mark.parametrize(
    "config", [config for config in SHIPPED if config.name != "default"], ids=lambda config: config.name
)
def test_copy_shipped_validates_and_names_the_same_files(config: ShippedConfig, place: str, tmp_path: Path) -> None:
    """Wherever a copy lies, it is valid by itself and every path in it leads where the original's leads."""
    copied = copy_shipped(config, tmp_path / place, shown=place)
    original, copy = validate_file(config.path), validate_file(copied.path)
    assert copy.section == original.section == config.section
    for key in PATH_FIELDS:
        if key != "run.output_dir":
            assert find(copy.composed.values, key) == find(original.composed.values, key), key


def find(values: dict, key: str) -> object:
    """Return the value of a dotted key; None where there is none."""
    for part in key.split("."):
        values = values.get(part, {})
    return values or None


def test_copy_shipped_whole_config_is_found_by_config_dir(tmp_path: Path) -> None:
    """The command that the copy names composes it, with the data of the example."""
    copied = copy_shipped(find_shipped("examples/minimal"), tmp_path / "mine", shown="mine")
    assert copied.usage == "codex-ml train --config-dir mine --config-name minimal"
    assert f"# Run it: {copied.usage}" in copied.path.read_text("utf-8")
    composed = compose("train", "minimal", tmp_path / "mine", working_directory=tmp_path, environment={})
    assert Path(composed.values["data"]["path"]) == packaged_directory("examples") / "minimal" / "data.jsonl"
    packaged = compose("train", "examples/minimal", working_directory=tmp_path, environment={})
    assert composed.values == packaged.values


def test_copy_shipped_choice_of_a_section_is_found_by_its_group(tmp_path: Path) -> None:
    """A file of a section is put where the group finds it."""
    copied = copy_shipped(find_shipped("adapter/lora"), tmp_path, shown="mine")
    assert copied.usage == "codex-ml train --config-dir mine adapter=lora"
    copied.path.write_text(copied.path.read_text("utf-8").replace("r: 8 ", "r: 5 "), encoding="utf-8")
    composed = compose("train", "default", tmp_path, ["adapter=lora"], working_directory=tmp_path, environment={})
    assert composed.values["adapter"]["r"] == 5


def test_copy_shipped_keeps_every_comment(tmp_path: Path) -> None:
    """Only paths, the line on how to run it and the package line differ."""
    config = find_shipped("examples/minimal")
    before = config.path.read_text("utf-8").splitlines()
    after = copy_shipped(config, tmp_path, shown="x").path.read_text("utf-8").splitlines()
    changed = [line for line in before if line not in after]
    assert [line.split()[0] for line in changed] == ["#", "#", "path:", "path:"]
    assert changed[0] == "# @package _global_"
    assert all("# relative to this file" in line for line in after if line.strip().startswith("path:"))


def test_copy_shipped_present_file_or_link_is_not_overwritten(tmp_path: Path) -> None:
    """Whatever bears the name stays as it is."""
    (tmp_path / "minimal.yaml").write_text("mine")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "lora.yaml").symlink_to(tmp_path / "nowhere")
    for name in ("examples/minimal", "adapter/lora"):
        with pytest.raises(UserError, match="is there already"):
            copy_shipped(find_shipped(name), tmp_path, shown="x")
    assert (tmp_path / "minimal.yaml").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_copy_shipped_file_in_the_way_is_a_user_error(tmp_path: Path) -> None:
    """A directory that cannot be made is named."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="a file is in the way"):
            copy_shipped(find_shipped("default"), place, shown="x")
