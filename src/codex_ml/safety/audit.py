"""The safety audit: one event for each finding and each bypass, with ids and offsets and never a word of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class FindingLike(Protocol):
    """What the audit needs to know of a finding."""

    @property
    def rule_id(self) -> str:
        """Id of the rule that matched."""
        ...

    @property
    def start(self) -> int:
        """Offset of the span in the field, in characters."""
        ...

    @property
    def length(self) -> int:
        """Length of the span in characters."""
        ...


@dataclass(frozen=True)
class Bypass:
    """That the filters were off: in which job, why, who asked for it and when, and which policy would have stood."""

    stage: str
    reason: str
    who: str
    when: str
    policy: str
    policy_digest: str

    def to_json(self) -> dict[str, str]:
        """Return it as it stands in events, provenance, results and the manifests of checkpoints."""
        return {
            "stage": self.stage,
            "reason": self.reason,
            "who": self.who,
            "when": self.when,
            "policy": self.policy,
            "policy_digest": self.policy_digest,
        }


class SafetyAudit:
    """Turns findings into events and counts them.

    Parameters
    ----------
    emit : callable
        Takes one event, a flat dictionary of strings and numbers; adds time and run where it is written.
    stage : str
        Where the filters stood: ``"data"``, ``"prompt"``, ``"output"`` …
    """

    def __init__(self, emit: Callable[[dict[str, Any]], None], stage: str) -> None:
        self._emit = emit
        self._stage = stage
        self.counts: Counter[str] = Counter()

    def record(self, record_id: str, field: str, findings: Sequence[FindingLike], action: str) -> None:
        """Emit one event for each finding in a field of a record; ``action`` is what was done about the field."""
        for finding in findings:
            self.counts[finding.rule_id] += 1
            self._emit(
                {
                    "kind": "safety_finding",
                    "stage": self._stage,
                    "record_id": record_id,
                    "field": field,
                    "rule_id": finding.rule_id,
                    "offset": finding.start,
                    "length": finding.length,
                    "action": action,
                }
            )

    def bypass(self, bypass: Bypass) -> None:
        """Emit the event that the filters are off."""
        self._emit({"kind": "safety_bypass", **bypass.to_json()})
