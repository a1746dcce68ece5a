"""One file validated by its path: what it is taken for."""

from __future__ import annotations

import pytest

from codex_ml.config.validate import validate_file
from codex_ml.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "section"),
    [
        ("adapter/my.yaml", "r: 4\n", "adapter"),
        ("adapter/full.yaml", "defaults: [lora, _self_]\nr: 4\n", "adapter"),
        ("anywhere.yaml", "# @package adapter\nr: 4\n", "adapter"),
        ("anywhere.yaml", "# my adapter\nr: 4\nalpha: 8\n", "adapter"),
        ("my.yaml", "defaults: [/default, _self_]\nmodel: {path: m}\ndata: {path: d}\n", None),
        ("training/my.yaml", "defaults: [/default, _self_]\nmodel: {path: m}\ndata: {path: d}\n", None),
        ("training/my.yaml", "model: {path: m}\ndata: {path: d}\n", None),
        ("deep/my.yaml", "# @package _global_\nmodel: {path: m}\ndata: {path: d}\n", None),
        ("données (1)/a b.yaml", "model: {path: m}\ndata: {path: d}\n", None),
    ],
)
def test_validate_file_valid_is_taken_for_what_it_is(tmp_path, name, text, section):
    """Header, directory and keys tell a whole configuration from the file of a group."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    valid = validate_file(file)
    assert valid.section == section
    if section == "adapter":
        assert valid.config.r == 4
        assert valid.value_count == 7


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("training/my.yaml", "lerning_rate: 1\n", "training.lerning_rate"),
        ("training/my.yaml", "epochs: 1\nmax_steps: 2\n", "training.epochs"),
        ("training/my.yaml", "epochs: 1\nrun: {}\nwarmup_steps: -1\n", "training.warmup_steps"),
        ("adapter/my.yaml", "_target_: os.system\n", "adapter._target_"),
        ("my.yaml", "lerning_rate: 1\n", "lerning_rate"),
        ("my.yaml", "training: {epochs: 1}\n", "model.path"),
        ("my.yaml", "path: x\n", "path"),
        ("my.yml", "r: 1\n", "--config"),
        ("adapter/none-there.yaml", None, "--config"),
    ],
)
def test_validate_file_invalid_names_the_key(tmp_path, name, text, key):
    """Faults of a file come with their dotted key, as on a run."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        validate_file(file)
    assert key in {problem.key for problem in raised.value.problems}


def test_validate_file_relative_path_starts_at_the_working_directory(tmp_path):
    """The file is looked for where the command was typed."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "my.yaml").write_text("r: 4\n", encoding="utf-8")
    valid = validate_file(
        tmp_path.relative_to(tmp_path.parent) / "adapter" / "my.yaml", working_directory=tmp_path.parent
    )
    assert valid.section == "adapter"
