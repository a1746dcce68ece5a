"""The safety filters of a configuration, and what is said of them; nothing here needs a model or imports torch."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from codex_ml.clock import format_time, utc_now
from codex_ml.config.schema.safety import SafetySection
from codex_ml.safety.audit import Bypass
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy


def open_filters(safety: SafetySection) -> SafetyFilters:
    """Load the policy and build the filters of a config.

    Raises
    ------
    SafetyError
        If the policy cannot be used, or the filters are off without a reason.
    """
    policy = load_policy(safety.policy)
    return SafetyFilters(policy, safety.enabled, safety.bypass_reason, pseudonyms=safety.pseudonyms)


def user_name() -> str:
    """Return who runs this process, as the operating system knows them; environment variables are not asked."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class Witness:
    """Who sees that filters are off: the job, the user and the clock.

    Parameters
    ----------
    stage : str
        What is done without filters: ``"train"`` or ``"evaluate"``.
    """

    stage: str
    who: Callable[[], str] = user_name
    clock: Callable[[], datetime] = utc_now

    def bypass(self, filters: SafetyFilters) -> Bypass | None:
        """Return the record that filters are off; None where they are on."""
        if filters.bypass_reason is None:
            return None
        policy = filters.policy
        moment = format_time(self.clock())
        return Bypass(self.stage, filters.bypass_reason, self.who(), moment, policy.name, policy.digest)


def bypass_warnings(filters: SafetyFilters) -> list[str]:
    """Return the line that a user is to see before anything is read without filters; none where they are on."""
    if not filters.bypassed:
        return []
    return [
        f"warning: safety filters are bypassed, which is meant for tests: {filters.bypass_reason} "
        f"(the policy {filters.policy.name} is not applied to data, logs and predictions; what is made so says so)"
    ]


def safety_summary(
    filters: SafetyFilters, findings: dict[str, int], bypasses: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what provenance says of safety: the policy, each bypass with who, when and why, and what was found."""
    return {
        "enabled": not filters.bypassed,
        "policy": filters.policy.name,
        "policy_digest": filters.policy.digest,
        "bypass_reason": filters.bypass_reason,
        "bypasses": [dict(bypass) for bypass in bypasses],
        "findings_by_rule": dict(sorted(findings.items())),
    }
