"""What `runs verify` holds of several files against the configuration: division, names and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.manifest import without_membership
from codex_ml.errors import UserError
from codex_ml.recipes.verify.data import check_data
from codex_ml.recipes.verify.inputs import Moved
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.verification import Check

DIVISION = {"seed": 0, "ratios": [0.8, 0.1, 0.1], "group_by": None, "exact_sizes": False}


def _checks(directory: Path, **section: Any) -> dict[str, Check]:
    """Return the checks of a run of two files, which lie nowhere now, held against a data section."""
    weights = {"a": 2.0, "b": 1.0}
    parts = [
        {"key": f"files.{name}", "weight": weight, "source": {"name": f"{name}.jsonl"}, "records": 1, "offsets": [0]}
        for name, weight in weights.items()
    ]
    manifest = {"schema_version": 1, "splits": {"train": {"records": 2, "parts": parts}}, "split": DIVISION}
    layout = RunLayout(directory)
    layout.data_splits.write_text(json.dumps(manifest), "utf-8")
    files = {name: directory / f"{name}.jsonl" for name in weights}
    data = DataSection(**{"files": files, "weights": {"a": 2.0}, **section})
    return {check.key: check for check in check_data(data, layout, {"data": without_membership(manifest)})}


def _differing(checks: dict[str, Check]) -> list[str]:
    return sorted(key for key, check in checks.items() if check.state == "differs")


def test_check_data_several_files_as_configured_agree(tmp_path: Path) -> None:
    """Nothing differs; files that lie elsewhere are named with the option that says where."""
    checks = _checks(tmp_path)
    assert _differing(checks) == []
    assert "files.NAME=FILE" in checks["data.splits.train.parts.0.source"].note


def test_check_data_several_files_divided_otherwise_differ(tmp_path: Path) -> None:
    """The division of data.files is compared as that of data.path is."""
    assert any(key.startswith("data.split") for key in _differing(_checks(tmp_path, split={"seed": 1})))


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"b": 2.0}, {"a": 2.0, "b": 3.0}])
def test_check_data_other_weights_differ(tmp_path: Path, weights: dict[str, float]) -> None:
    """A weight decides how often records stand in train."""
    assert _differing(_checks(tmp_path, weights=weights)) == ["data.splits.train.weights"]


def test_check_data_other_names_of_files_differ(tmp_path: Path) -> None:
    """A file that the run did not have is not passed over."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("a", "b", "c")}
    assert _differing(_checks(tmp_path, files=files)) == ["data.splits.train.weights"]


def test_config_values_name_without_files_in_front_is_explained(tmp_path: Path) -> None:
    """`--data b=FILE` is a path that holds an equals sign, or a slip."""
    with pytest.raises(UserError) as caught:
        Moved(data={"path": Path(f"b={tmp_path}/b.jsonl")}).config_values()
    assert "files.NAME=FILE" in str(caught.value.fix)
