"""The directory that receives an evaluation: a run of its own is locked while it is in progress."""

from __future__ import annotations

from codex_ml.config.schema.root import EvaluateConfig
from codex_ml.recipes.evaluate import EvaluateCollaborators, _receiving_run
from codex_ml.runs.layout import read_record
from codex_ml.runs.lock import is_locked
from codex_ml.runs.targets import BASE, Target


def test_receiving_run_of_its_own_run_is_locked_until_it_ends(tmp_path):
    """`runs list` closes a run that says RUNNING and holds no lock: an evaluation in progress must hold it."""
    config = EvaluateConfig.model_validate(
        {
            "run": {"output_dir": str(tmp_path / "runs")},
            "model": {"path": str(tmp_path)},
            "data": {"test": str(tmp_path / "d.jsonl")},
        }
    )
    with _receiving_run(config, [Target(BASE, None, {})], EvaluateCollaborators()) as layout:
        assert read_record(layout).status == "RUNNING"
        assert is_locked(layout.lock)
    assert read_record(layout).status == "FINISHED"
    assert not is_locked(layout.lock)
