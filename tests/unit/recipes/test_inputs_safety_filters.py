"""Filters that are off: who is named, what is warned of, and what is recorded."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.schema.safety import SafetySection
from codex_ml.config.validate import validate_train
from codex_ml.recipes.data.preview import preview_records
from codex_ml.recipes.inputs import BypassRecorder, bypass_warnings, open_filters, safety_summary, user_name

pytestmark = pytest.mark.safety

OFF = SafetySection(enabled=False, bypass_reason="made-up records")


def test_user_name_is_that_of_the_operating_system() -> None:
    """No variable of the environment decides who turned the filters off."""
    assert user_name() == pwd.getpwuid(os.getuid()).pw_name


def test_witness_filters_that_are_off_gives_a_whole_record() -> None:
    """Job, reason, user, moment in UTC, and the policy that would have stood."""
    filters = open_filters(OFF)
    bypass = BypassRecorder("train", lambda: "ann", lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)).bypass(filters)
    assert bypass is not None
    assert bypass.to_json() == {
        "stage": "train",
        "reason": "made-up records",
        "who": "ann",
        "when": "2026-01-02T03:04:05.000000Z",
        "policy": "default",
        "policy_digest": filters.policy.digest,
    }
    assert safety_summary(filters, {}, [bypass.to_json()])["bypasses"] == [bypass.to_json()]


def test_witness_filters_that_are_on_gives_nothing_to_warn_of() -> None:
    """Neither a record nor a line."""
    filters = open_filters(SafetySection())
    assert BypassRecorder("train").bypass(filters) is None
    assert bypass_warnings(filters) == []


def test_preview_records_filters_that_are_off_are_warned_of_first(tmp_path: Path, tiny_llama_directory: Path) -> None:
    """Before any record is shown; with the filters on nothing is said."""
    file = tmp_path / "d.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n', "utf-8")
    values = [f"model.path={tiny_llama_directory}", f"data.path={file}"]
    for more in ([], ["safety.enabled=false", "safety.bypass_reason=test"]):
        composed = compose("train", "default", None, [*values, *more], working_directory=tmp_path, environment={})
        said: list[str] = []
        assert len(list(preview_records(validate_train(composed), file, 5, emit=said.append))) == 1
        assert [line.startswith("warning: safety filters are bypassed") for line in said] == [True] * bool(more)
