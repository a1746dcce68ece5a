"""The evaluation job: a run of its own is locked while it is in progress, and results say how they came about."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from codex_ml.config.schema.root import EvaluateConfig
from codex_ml.recipes.evaluate import EvaluateDependencies, _receiving_run, evaluate
from codex_ml.runs.layout import read_record
from codex_ml.runs.listing import BASE, Target
from codex_ml.runs.lock import is_locked


def test_receiving_run_of_its_own_run_is_locked_until_it_ends(tmp_path):
    """`runs list` closes a run that says RUNNING and holds no lock: an evaluation in progress must hold it."""
    config = EvaluateConfig.model_validate(
        {
            "run": {"output_dir": str(tmp_path / "runs")},
            "model": {"path": str(tmp_path)},
            "data": {"test": str(tmp_path / "d.jsonl")},
        }
    )
    with _receiving_run(config, [Target(BASE, None, {})], EvaluateDependencies()) as layout:
        assert read_record(layout).status == "RUNNING"
        assert is_locked(layout.lock)
    assert read_record(layout).status == "FINISHED"
    assert not is_locked(layout.lock)


@pytest.mark.safety
@pytest.mark.parametrize("reason", [None, "made-up data"])
def test_evaluate_results_say_whether_filters_were_bypassed_and_why(tmp_path, tiny_llama_directory, reason):
    """A number from unfiltered texts must not look like one from filtered texts."""
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "Who? ", "completion": "red"}\n', "utf-8")
    values = {
        "run": {"output_dir": str(tmp_path / "runs")},
        "model": {"path": str(tiny_llama_directory)},
        "data": {"test": str(data)},
        "eval": {"metrics": ["loss"]},
        "safety": {"enabled": reason is None, "bypass_reason": reason},
    }
    config = EvaluateConfig.model_validate(values)
    said = []
    dependencies = EvaluateDependencies(
        emit=said.append, who=lambda: "ann", clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    outcome = evaluate(config, [Target(BASE, None, {})], dependencies)
    results = json.loads((outcome.directory / "base" / "results.json").read_text("utf-8"))
    digest = results["digests"]["safety_policy"]
    bypass = {
        "stage": "evaluate",
        "reason": reason,
        "who": "ann",
        "when": "2026-01-02T03:04:05.000000Z",
        "policy": "default",
        "policy_digest": digest,
    }
    assert results["safety"] == {
        "enabled": reason is None,
        "policy": "default",
        "policy_digest": digest,
        "bypass_reason": reason,
        "bypasses": [] if reason is None else [bypass],
    }
    events = [json.loads(line) for line in (outcome.directory / "metrics.ndjson").read_text("utf-8").splitlines()]
    noted = [event for event in events if event["kind"] == "safety_bypass"]
    assert [{key: event[key] for key in bypass} for event in noted] == results["safety"]["bypasses"]
    assert [line for line in said if "safety filters are bypassed" in line] == said[: len(noted)]
    assert "safety_filter" not in results["settings"]
