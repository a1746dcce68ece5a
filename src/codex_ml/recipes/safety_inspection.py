"""What a safety policy holds and what it finds in a text: the jobs behind `codex-ml safety`."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from codex_ml.errors import DataError, UserError
from codex_ml.runs.layout import near_names
from codex_ml.safety.filters import Action, SafetyFilters
from codex_ml.safety.policy import Policy
from codex_ml.safety.rendering import marker
from codex_ml.safety.streaming import PlacedFinding, StreamFilter

MOST_PLACES = 1000
_BLOCK_BYTES = 64 * 1024
# Lines of files of records are long; a stream that people wait for is divided earlier.
_LONGEST_STRETCH_CHARACTERS = 1024 * 1024


@dataclass
class TextReport:
    """What was found in a text: every finding counted, the first ones with their positions, never content."""

    name: str
    characters: int = 0
    action: Action = "keep"
    blocked: bool = False
    findings: Counter[str] = field(default_factory=Counter)
    places: list[PlacedFinding] = field(default_factory=list)

    def to_json(self, policy: Policy) -> dict[str, Any]:
        """Return it as JSON values, with the policy it was made by."""
        return {
            "file": self.name,
            "characters": self.characters,
            "policy": policy.name,
            "policy_digest": policy.digest,
            "action": self.action,
            "blocked": self.blocked,
            "findings_by_rule": dict(sorted(self.findings.items())),
            "findings": [
                {
                    "rule": found.rule_id,
                    "kind": found.kind,
                    "line": found.place.line,
                    "column": found.place.column,
                    "offset": found.place.offset,
                    "length": found.length,
                }
                for found in self.places
            ],
            "not_listed": self.findings.total() - len(self.places),
        }


def inspect_text(
    name: str, source: BinaryIO, filters: SafetyFilters, show: Callable[[str], None] | None = None
) -> TextReport:
    """Read a text to its end through the filters, in constant memory.

    Parameters
    ----------
    name : str
        What it is called in messages.
    source : binary file
        UTF-8.
    filters : SafetyFilters
        Policy in force.
    show : callable, optional
        Takes the redacted text, piece by piece.

    Raises
    ------
    DataError
        If it is no UTF-8; what was shown before is redacted like the rest.
    """
    stream = StreamFilter(filters, block_characters=_BLOCK_BYTES, most_held_characters=_LONGEST_STRETCH_CHARACTERS)
    report = TextReport(name)
    for piece in _decoded(name, source):
        report.characters += len(piece)
        _take_in(report, stream, stream.feed(piece), show)
    _take_in(report, stream, stream.close(), show)
    report.action, report.blocked = stream.action, stream.blocked
    return report


def _take_in(report: TextReport, stream: StreamFilter, redacted: str, show: Callable[[str], None] | None) -> None:
    for found in stream.take_findings():
        report.findings[found.rule_id] += 1
        if len(report.places) < MOST_PLACES:
            report.places.append(found)
    if show is not None and redacted:
        show(redacted)


def _decoded(name: str, source: BinaryIO) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    read_bytes = 0
    while block := source.read(_BLOCK_BYTES):
        yield _decode(name, decoder, block, read_bytes, is_end=False)
        read_bytes += len(block)
    yield _decode(name, decoder, b"", read_bytes, is_end=True)


def _decode(name: str, decoder: codecs.IncrementalDecoder, block: bytes, read_bytes: int, *, is_end: bool) -> str:
    waiting = len(decoder.getstate()[0])
    try:
        return decoder.decode(block, is_end)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8",
            why=f"the byte at offset {read_bytes - waiting + error.start:,} begins no character ({error.reason})",
            fix="convert the file to UTF-8, for example with iconv; the policy judges text",
            code="FILE_NOT_UTF8",
        ) from error


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return name, digest and the rules of a policy as JSON values, in the order of the policy."""
    return {
        "policy": policy.name,
        "version": policy.version,
        "digest": policy.digest,
        "rules": [
            {
                "id": rule.id,
                "kind": rule.kind,
                "action": rule.action,
                "description": rule.description,
                "patterns": len(rule.patterns),
                "phrases": len(rule.phrases),
            }
            for rule in policy.rules
        ],
    }


def explain_rule(policy: Policy, rule_id: str) -> dict[str, Any]:
    """Return everything that a policy says of a rule, with the permissions that name it and its marker.

    Raises
    ------
    UserError
        If the policy has no such rule, with names that are near.
    """
    rule = next((rule for rule in policy.rules if rule.id == rule_id), None)
    if rule is None:
        near = near_names(rule_id, [rule.id for rule in policy.rules])
        raise UserError(
            f"no rule of the policy {policy.name!r} is named {rule_id!r}",
            why=f"it has {len(policy.rules)} rules",
            fix=f"did you mean {' or '.join(near)}?" if near else "codex-ml safety list shows them all",
            code="SAFETY_UNKNOWN_RULE",
        )
    permissions = [permission for permission in policy.allow if rule_id in permission.rules]
    return {
        **rule.model_dump(mode="json"),
        "permissions": [permission.model_dump(mode="json", exclude={"rules"}) for permission in permissions],
        "marker": marker(rule_id),
        "policy": policy.name,
        "policy_digest": policy.digest,
    }
