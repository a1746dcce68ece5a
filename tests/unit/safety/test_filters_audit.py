"""Audit events: ids and offsets, never text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codex_ml.safety.filters import Bypass, SafetyAudit, SafetyFilters

pytestmark = pytest.mark.safety


def test_record_emits_one_event_a_finding_without_text(default_filters: SafetyFilters) -> None:
    """An event says which rule, which record and field, where, and what was done; the secret is in none."""
    text = "ask jane@example.com or +1 212 555 0187"
    filtered = default_filters.apply(text)
    events: list[dict[str, Any]] = []
    audit = SafetyAudit(events.append, stage="data")
    audit.record("data.jsonl:3", "prompt", filtered.findings, filtered.action)
    assert events[0] == {
        "kind": "safety_finding",
        "stage": "data",
        "record_id": "data.jsonl:3",
        "field": "prompt",
        "rule_id": "email",
        "offset": 4,
        "length": 16,
        "action": "redact",
    }
    assert [event["rule_id"] for event in events] == ["email", "phone"]
    written = json.dumps(events)
    assert not any(word in written for word in ("jane", "example", "212", "ask"))


def test_record_counts_findings_by_rule(default_filters: SafetyFilters) -> None:
    """The counts of all records stand under the rule ids."""
    audit = SafetyAudit(lambda _event: None, stage="output")
    for _ in range(2):
        audit.record("r", "f", default_filters.apply("a@example.com, b@example.com").findings, "redact")
    assert audit.counts == {"email": 4}


def test_bypass_emits_reason_and_policy() -> None:
    """A bypass leaves a trace with its reason and the policy that was set aside."""
    events: list[dict[str, Any]] = []
    bypass = Bypass("train", "synthetic data", "ann", "2026-01-01T00:00:00.000000Z", "default", "sha256:00")
    SafetyAudit(events.append, stage="data").bypass(bypass)
    assert events == [
        {
            "kind": "safety_bypass",
            "stage": "train",
            "reason": "synthetic data",
            "who": "ann",
            "when": "2026-01-01T00:00:00.000000Z",
            "policy": "default",
            "policy_digest": "sha256:00",
        }
    ]
