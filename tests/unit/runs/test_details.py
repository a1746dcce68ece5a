"""What `runs show` gathers: digests, checkpoints at a glance, evaluations, files; nothing damaged ends it."""

from __future__ import annotations

import json

import pytest

from codex_ml.io.atomic import Storage, file_digest
from codex_ml.runs.checkpoints import write_pointer
from codex_ml.runs.details import describe_checkpoints, describe_run, render_details
from codex_ml.runs.layout import RunLayout


@pytest.fixture
def full(make_run, add_checkpoint) -> tuple[RunLayout, object]:
    """Return a run with everything."""
    layout, record = make_run()
    layout.config.write_text("run: {name: a}\n")
    provenance = {
        "config_digest": file_digest(layout.config),
        "base_model": {"name": "org/model", "revision": "abc", "digest": "sha256:f"},
        "compute": {"base_model_digest": "sha256:b", "tokenizer_digest": "sha256:t"},
        "data": {"splits": {"train": {"source": {"name": "d.jsonl"}, "records": 5, "digest": "sha256:d"}}},
        "safety": {"enabled": True, "policy": "default", "policy_digest": "sha256:p", "bypass_reason": None},
    }
    layout.provenance.write_text(json.dumps(provenance))
    add_checkpoint(layout, 5, best_metric=1.5)
    add_checkpoint(layout, 10, best_metric=1.5)
    write_pointer(layout.checkpoints, "best", 5, Storage())
    write_pointer(layout.checkpoints, "latest", 10, Storage())
    for name in ("base", "step-00000005", ".step-00000005.partial"):
        directory = layout.evaluations / name
        directory.mkdir(parents=True)
        results = {"checkpoint": name, "split": "test", "records_scored": 3, "metrics": {"bleu": {"value": 12.5}}}
        (directory / "results.json").write_text(json.dumps(results))
    return layout, record


def test_describe_run_everything_is_there(full) -> None:
    """Digests, checkpoints, evaluations and files, as JSON values."""
    layout, record = full
    details = describe_run(layout, record)
    assert json.loads(json.dumps(details)) == details
    assert details["record"]["name"] == "a"
    assert details["config"] == {"digest": file_digest(layout.config), "unchanged": True}
    assert details["base_model"]["digest"] == "sha256:b"
    assert details["data"]["train"] == {"file": "d.jsonl", "records": 5, "digest": "sha256:d"}
    assert details["safety"]["policy_digest"] == "sha256:p"
    assert [item["checkpoint"] for item in details["evaluations"]] == ["base", "step-00000005"]
    assert details["evaluations"][0]["metrics"] == {"bleu": 12.5}
    assert {"name": "config.yaml", "bytes": 15} in details["outputs"]
    assert (details["steps"], details["best_validation_loss"], details["damaged"]) == (10, 1.5, [])


def test_describe_checkpoints_marks_latest_and_best(full) -> None:
    """Which is which stands on the line."""
    layout, _ = full
    marks = [
        (item["step"], item["latest"], item["best"], item["state"]) for item in describe_checkpoints(layout.checkpoints)
    ]
    assert marks == [(5, False, True, "whole"), (10, True, False, "whole")]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda directory: (directory / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda directory: (directory / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda directory: (directory / "adapter_model.safetensors").write_bytes(b""), "has another size"),
        (lambda directory: (directory / "stranger").touch(), "stranger is not in the manifest"),
        (lambda directory: (directory / "manifest.json").write_text("{"), "Expecting"),
    ],
)
def test_describe_checkpoints_damage_is_seen_at_a_glance(full, damage, fault: str) -> None:
    """Manifest and sizes show it; digests are not computed for a look."""
    layout, _ = full
    damage(layout.checkpoints / "step-00000005")
    first, second = describe_checkpoints(layout.checkpoints)
    assert first["state"] == "damaged"
    assert fault in first["fault"]
    assert second["state"] == "whole"


def test_describe_run_changed_config_is_said(full) -> None:
    """A config that was edited after the run is not passed off as the one it used."""
    layout, record = full
    layout.config.write_text("other: 1\n")
    details = describe_run(layout, record)
    assert details["config"]["unchanged"] is False
    assert "config.yaml was changed since" in render_details(details)


def test_describe_checkpoints_before_validation_none_is_best(make_run, add_checkpoint) -> None:
    """Until something was validated `best` names the newest, which is no judgement."""
    layout, record = make_run()
    add_checkpoint(layout, 5)
    for pointer in ("latest", "best"):
        write_pointer(layout.checkpoints, pointer, 5, Storage())
    (item,) = describe_checkpoints(layout.checkpoints)
    assert (item["latest"], item["best"]) == (True, False)
    assert "best: none validated yet" in render_details(describe_run(layout, record))


def test_describe_run_that_died_at_once_is_mostly_empty(make_run) -> None:
    """What it never wrote is null, and the text shows dashes."""
    layout, record = make_run(status="RUNNING")
    details = describe_run(layout, record)
    assert details["config"] == {"digest": None, "unchanged": None}
    assert (details["checkpoints"], details["evaluations"], details["data"], details["steps"]) == ([], [], {}, None)
    assert "RUNNING" in render_details(details)


def test_describe_run_damaged_files_are_named(full) -> None:
    """A torn provenance does not hide the rest."""
    layout, record = full
    layout.provenance.write_text('{"config_digest": ')
    (layout.evaluations / "base" / "results.json").write_text("{")
    details = describe_run(layout, record)
    assert [text.partition(":")[0] for text in details["damaged"]] == ["provenance.json", "results.json"]
    assert len(details["evaluations"]) == 1
    assert "damaged" in render_details(details)


def test_render_details_names_all_that_matters(full) -> None:
    """The text holds the digests, the marks and the metrics."""
    text = render_details(describe_run(*full))
    for word in ("sha256:b", "org/model @ abc", "sha256:d", "policy default, on", "latest", "best", "bleu 12.5000"):
        assert word in text, word


def test_render_details_bypass_shows_its_reason(full) -> None:
    """Safety that was off cannot be overlooked."""
    layout, record = full
    provenance = json.loads(layout.provenance.read_text())
    provenance["safety"] |= {"enabled": False, "bypass_reason": "made-up records"}
    layout.provenance.write_text(json.dumps(provenance))
    assert "OFF: made-up records" in render_details(describe_run(layout, record))
