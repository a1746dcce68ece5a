"""The safety filters of a configuration, and what is said of them; nothing here needs a model or imports torch."""

from __future__ import annotations

from typing import Any

from codex_ml.config.schema.safety import SafetySection
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy


def open_filters(safety: SafetySection) -> SafetyFilters:
    """Load the policy and build the filters of a config.

    Raises
    ------
    SafetyError
        If the policy cannot be used, or the filters are off without a reason.
    """
    return SafetyFilters(load_policy(safety.policy), safety.enabled, safety.bypass_reason)


def safety_summary(filters: SafetyFilters, findings: dict[str, int]) -> dict[str, Any]:
    """Return what provenance says of safety: the policy, whether it was bypassed and why, and what it found."""
    return {
        "enabled": not filters.bypassed,
        "policy": filters.policy.name,
        "policy_digest": filters.policy.digest,
        "bypass_reason": filters.bypass_reason,
        "findings_by_rule": dict(sorted(findings.items())),
    }
