"""The safety filters: find what a policy forbids in a text, mark it, and say what is to be done with the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codex_ml.errors import SafetyError
from codex_ml.limits import limited
from codex_ml.safety.matching import Span, compile_rule
from codex_ml.safety.policy import Policy, Rule, RuleKind

Action = Literal["keep", "redact", "drop", "block"]
Matcher = Callable[[str], list[Span]]

_SEVERITY: dict[Action, int] = {"keep": 0, "redact": 1, "drop": 2, "block": 3}
# Of one rule on one text, of a policy that is not the packaged one; a sound rule needs a thousandth of it.
_RULE_CPU_SECONDS, _RULE_CPU_SECONDS_PER_CHARACTER = 2.0, 1e-5
# A shorter number cannot be a card or a phone number, and counts are everywhere.
_SHORTEST_NUMBER_DIGITS = 7


@dataclass(frozen=True)
class Finding:
    """One forbidden span: which rule, of which kind, and where in the text as it was given (in characters)."""

    rule_id: str
    kind: RuleKind
    start: int
    length: int


@dataclass(frozen=True)
class Filtered:
    """A text after the filters: safe to use where ``action`` is keep or redact, safe to show in every case."""

    text: str
    findings: tuple[Finding, ...]
    action: Action


@dataclass(frozen=True)
class _Hit:
    rule: Rule
    start: int
    end: int


@dataclass(frozen=True)
class _Piece:
    """A stretch of a rendered text and the stretch of the original it stands for, word for word or as a marker."""

    start: int
    end: int
    original_start: int
    original_end: int
    is_marker: bool


class SafetyFilters:
    """Apply a policy to text; fail closed.

    Parameters
    ----------
    policy : Policy
        The rules in force.
    enabled : bool
        False lets everything pass, and needs a reason.
    bypass_reason : str, optional
        Why the filters are off; belongs in the run's provenance and audit.
    compile_rule : callable
        Turns a rule into a function from text to spans; a parameter so that a test can pass one that fails.

    Raises
    ------
    SafetyError
        If the filters are turned off without a reason.
    """

    def __init__(
        self,
        policy: Policy,
        enabled: bool = True,
        bypass_reason: str | None = None,
        compile_rule: Callable[[Rule], Matcher] = compile_rule,
    ) -> None:
        if not enabled and not (bypass_reason or "").strip():
            raise SafetyError(
                "safety.bypass_reason: the safety filters are off and no reason is given",
                why="a bypass must be traceable in the run's provenance and audit log",
                fix="write the reason, as in safety.bypass_reason='synthetic data', or set safety.enabled=true",
            )
        self.policy = policy
        self.bypass_reason = None if enabled else bypass_reason
        self._matchers = [(rule, compile_rule(rule)) for rule in policy.rules] if enabled else []
        self._markers = tuple(_marker(rule.id) for rule in policy.rules)

    @property
    def bypassed(self) -> bool:
        """Whether the filters are off."""
        return self.bypass_reason is not None

    def apply(self, text: str) -> Filtered:
        """Return the text with every forbidden span replaced by ``[REDACTED:rule_id]``, the findings, and the action.

        Applied to its own result it changes nothing. A rule that fails on the text blocks it as a whole, because
        nothing is then known about what the text holds.
        """
        hits: list[_Hit] = []
        rendered, pieces = text, [_Piece(0, len(text), 0, len(text), is_marker=False)]
        while True:
            new = self._find(rendered)
            if isinstance(new, Filtered):
                return Filtered(
                    new.text, (Finding(new.findings[0].rule_id, new.findings[0].kind, 0, len(text)),), "block"
                )
            grown = _merge([*hits, *(_to_original(hit, pieces) for hit in new)])
            # A replacement can complete another pattern; look again until a look finds nothing that is not marked.
            if _covered(grown) == _covered(hits):
                break
            hits = grown
            rendered, pieces = _render(text, hits)
        actions: list[Action] = ["keep", *(hit.rule.action for hit in hits)]
        action = max(actions, key=_SEVERITY.__getitem__)
        findings = tuple(Finding(hit.rule.id, hit.rule.kind, hit.start, hit.end - hit.start) for hit in hits)
        return Filtered(rendered, findings, action)

    def redact(self, text: str) -> str:
        """Return the text as it may be shown or written."""
        return self.apply(text).text

    def redact_value(self, value: object) -> object:
        """Return a JSON value with every string in it redacted, keys and long numbers too.

        Two keys that become equal get ``#2``, ``#3`` … behind them, so that nothing disappears.
        """
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            result: dict[str, object] = {}
            for key, item in value.items():
                name = plain = self.redact(str(key))
                number = 2
                while name in result:
                    name, number = f"{plain}#{number}", number + 1
                result[name] = self.redact_value(item)
            return result
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.redact_value(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10 ** (_SHORTEST_NUMBER_DIGITS - 1):
            redacted = self.redact(str(value))
            return value if redacted == str(value) else redacted
        return value

    def _find(self, text: str) -> list[_Hit] | Filtered:
        """Return what the rules find outside existing markers, or a blocked result when a rule fails."""
        markers = self._marker_spans(text)
        hits: list[_Hit] = []
        for rule, matcher in self._matchers:
            try:
                spans = self._match(matcher, text)
            except Exception:  # noqa: BLE001 - the boundary that fails closed: whatever went wrong, the text does not pass
                return Filtered(_marker(rule.id), (Finding(rule.id, rule.kind, 0, len(text)),), "block")
            for start, end in spans:
                # What lies inside a marker of this policy is a rule id, so nothing can hide there.
                if not any(first <= start and end <= last for first, last in markers):
                    hits.append(_Hit(rule, start, end))
        return hits

    def _match(self, matcher: Matcher, text: str) -> list[Span]:
        if self.policy.packaged:
            return matcher(text)
        # A rule from elsewhere that a text keeps busy fails on it, like any other rule that fails.
        with limited(_RULE_CPU_SECONDS + len(text) * _RULE_CPU_SECONDS_PER_CHARACTER):
            return matcher(text)

    def _marker_spans(self, text: str) -> list[Span]:
        spans: list[Span] = []
        if "[REDACTED:" not in text:
            return spans
        for marker in self._markers:
            position = text.find(marker)
            while position >= 0:
                spans.append((position, position + len(marker)))
                position = text.find(marker, position + len(marker))
        return spans


def _marker(rule_id: str) -> str:
    return f"[REDACTED:{rule_id}]"


def _covered(hits: Sequence[_Hit]) -> list[Span]:
    return [(hit.start, hit.end) for hit in hits]


def _merge(hits: Sequence[_Hit]) -> list[_Hit]:
    """Join overlapping hits; the severest rule gives its name, then the first, then the longest."""
    ordered = sorted(hits, key=lambda hit: (hit.start, -hit.end, -_SEVERITY[hit.rule.action]))
    merged: list[_Hit] = []
    for hit in ordered:
        if merged and hit.start < merged[-1].end:
            last = merged[-1]
            rule = hit.rule if _SEVERITY[hit.rule.action] > _SEVERITY[last.rule.action] else last.rule
            merged[-1] = _Hit(rule, last.start, max(last.end, hit.end))
        else:
            merged.append(hit)
    return merged


def _render(text: str, hits: Sequence[_Hit]) -> tuple[str, list[_Piece]]:
    """Replace each hit by its marker; also return which stretch of the result stands for which of the original."""
    parts: list[str] = []
    pieces: list[_Piece] = []
    length = 0

    def add(part: str, start: int, end: int, *, is_marker: bool) -> None:
        nonlocal length
        parts.append(part)
        pieces.append(_Piece(length, length + len(part), start, end, is_marker))
        length += len(part)

    position = 0
    for hit in hits:
        add(text[position : hit.start], position, hit.start, is_marker=False)
        add(_marker(hit.rule.id), hit.start, hit.end, is_marker=True)
        position = hit.end
    add(text[position:], position, len(text), is_marker=False)
    return "".join(parts), pieces


def _to_original(hit: _Hit, pieces: Sequence[_Piece]) -> _Hit:
    """Return a hit in a rendered text as a span of the original; a touched marker counts as a whole."""
    starts: list[int] = []
    ends: list[int] = []
    for piece in pieces:
        if piece.start < hit.end and hit.start < piece.end:
            offset = piece.original_start - piece.start
            starts.append(piece.original_start if piece.is_marker else max(hit.start, piece.start) + offset)
            ends.append(piece.original_end if piece.is_marker else min(hit.end, piece.end) + offset)
    return _Hit(hit.rule, min(starts), max(ends))
