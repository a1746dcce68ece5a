"""Filters that are off leave a trail: who, when, why and in which job, in everything that a run leaves behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from codex_ml.io.atomic import Storage, json_bytes
from codex_ml.recipes.verify.run import verify_run
from codex_ml.runs.details import describe_run, render_details
from codex_ml.runs.layout import RunLayout, read_record
from codex_ml.runs.listing import render_list, summarise

pytestmark = [pytest.mark.safety, pytest.mark.slow]

REASON = "records of a test at /srv/test"
OFF = ("safety.enabled=false", f"safety.bypass_reason='{REASON}'", "training.save_steps=2")


def bypass_by(who: str, policy_digest: str) -> dict[str, str]:
    """Return the record that everything of the run holds."""
    return {
        "stage": "train",
        "reason": REASON,
        "who": who,
        "when": "2026-01-02T03:04:05.000000Z",
        "policy": "default",
        "policy_digest": policy_digest,
    }


def at_that_time() -> datetime:
    """Return the moment at which the filters are turned off."""
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def safety_of(file) -> dict:
    """Return what a JSON file of a run says of safety."""
    return json.loads(file.read_text("utf-8"))["safety"]


def failing(layout: RunLayout) -> dict[str, str]:
    """Return what stands against a run, but for what is not on this machine."""
    return {check.key: check.line() for check in verify_run(layout).verification.checks if check.fails}


def test_bypass_stands_in_events_provenance_and_every_checkpoint_and_is_shown(train_here) -> None:
    """The warning comes before anything else and again at the end; nothing that the run leaves is silent about it."""
    run = train_here(*OFF, who=lambda: "ann", clock=at_that_time)
    assert run.said[0].startswith(f"warning: safety filters are bypassed, which is meant for tests: {REASON}")
    assert [n for n, line in enumerate(run.said) if "bypassed" in line] == [0, len(run.said) - 2]
    layout = RunLayout(run.directory)
    expected = bypass_by("ann", safety_of(layout.provenance)["policy_digest"])
    (event,) = run.events("safety_bypass")
    assert {key: event[key] for key in expected} == expected
    files = [layout.provenance, *sorted(layout.checkpoints.glob("step-*/manifest.json"))]
    assert len(files) == 3
    assert [safety_of(file)["bypasses"] for file in files] == [[expected]] * 3
    assert failing(layout) == {}
    record = read_record(layout)
    assert f"OFF: {REASON}; by ann at {expected['when']}" in render_details(describe_run(layout, record))
    assert "  OFF  " in render_list([summarise(layout, record)])
    assert "bypassed" in (layout.directory / "debug.log").read_text("utf-8")


def test_bypass_after_resumes_is_neither_lost_nor_doubled(train_here) -> None:
    """The same user is named once; another one is named besides, from the next checkpoint on."""
    directory = train_here(*OFF, "training.max_steps=2", who=lambda: "ann", clock=at_that_time).directory
    again = ("run.resume_from=" + str(directory), "training.keep_last=9")
    train_here(*OFF, *again, "training.max_steps=4", who=lambda: "ann")
    layout = RunLayout(directory)
    ann = bypass_by("ann", safety_of(layout.provenance)["policy_digest"])
    assert safety_of(layout.provenance)["bypasses"] == [ann]
    run = train_here(*OFF, *again, "training.max_steps=6", who=lambda: "bob", clock=at_that_time)
    both = [ann, ann | {"who": "bob"}]
    assert [event["who"] for event in run.events("safety_bypass")] == ["ann", "bob"]
    assert run.events("safety_audit_restarted") == []
    assert safety_of(layout.provenance)["bypasses"] == both
    of_steps = {f.parent.name: safety_of(f)["bypasses"] for f in layout.checkpoints.glob("step-*/manifest.json")}
    assert of_steps == {"step-00000002": [ann], "step-00000004": [ann], "step-00000006": both}
    assert failing(layout) == {}


def test_filters_that_are_on_name_no_bypass(train_here) -> None:
    """A run with its filters on says so everywhere, and verifies."""
    run = train_here()
    layout = RunLayout(run.directory)
    files = [layout.provenance, *layout.checkpoints.glob("step-*/manifest.json")]
    assert [(safety_of(file)["enabled"], safety_of(file)["bypasses"]) for file in files] == [(True, [])] * 2
    assert failing(layout) == {}
    assert "  on  " in render_list([summarise(layout, read_record(layout))])


def test_verify_bypass_that_was_taken_out_or_changed_is_named(train_here) -> None:
    """Whoever removes a name from one file disagrees with the others."""
    run = train_here(*OFF, who=lambda: "ann", clock=at_that_time)
    layout = RunLayout(run.directory)
    original = json.loads(layout.provenance.read_text("utf-8"))
    for change, key in (
        ({"bypasses": []}, "safety.bypasses"),
        ({"bypasses": [{**original["safety"]["bypasses"][0], "who": "eve"}]}, "events.ndjson"),
        ({"bypasses": [{**original["safety"]["bypasses"][0], "reason": "other"}]}, "safety.bypasses"),
    ):
        Storage().write_json(layout.provenance, {**original, "safety": original["safety"] | change})
        assert {key, "checkpoints/step-00000004/manifest.json.safety.bypasses"} <= set(failing(layout))
    layout.provenance.write_bytes(json_bytes(original))
    assert failing(layout) == {}
