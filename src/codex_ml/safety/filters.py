"""Safety filters: findings, redaction, and their audit records."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from codex_ml.errors import SafetyError
from codex_ml.safety.matching import PolicyMatcher, RuleFailedError, RuleMatch
from codex_ml.safety.policy import Policy, RuleKind
from codex_ml.safety.rendering import SEVERITY, Markers, marker, merge, render, to_original

Action = Literal["keep", "redact", "drop", "block"]

# Stands for a rule where it was no rule that failed.
FAILURE = "filter_failure"
# A shorter number cannot be a card or a phone number, nor that of a patient under its name; and counts are everywhere.
_SHORTEST_NUMBER_DIGITS = 6
# A value that only its name gives away (a password, a number of a patient) is short, and so is its name.
_LONGEST_NAMED_CHARACTERS = 256
_LONGEST_NAME_CHARACTERS = 64
# Signs and blanks that may stand before it.
_MOST_BEFORE_NAMED = 2
# What a log says again and again (keys, names of metrics) is not searched again: so many short texts, all found clean.
_LONGEST_REMEMBERED_CHARACTERS, _MOST_REMEMBERED = 64, 4096
# Looks at one text; two are the rule, where the second finds nothing new.
_MOST_LOOKS = 12


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
    pseudonyms : bool
        Whether a value keeps a number as long as these filters live: ``[REDACTED:email:3]``.
    find : callable, optional
        Gives the matches of the policy in a text; a parameter so that a test can pass one that fails.

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
        *,
        pseudonyms: bool = False,
        find: Callable[[str], list[RuleMatch]] | None = None,
    ) -> None:
        if not enabled and not (bypass_reason or "").strip():
            raise SafetyError(
                "safety.bypass_reason: the safety filters are off and no reason is given",
                why="a bypass must be traceable in the run's provenance and audit log",
                fix="write the reason, as in safety.bypass_reason='synthetic data', or set safety.enabled=true",
            )
        self.policy = policy
        self.bypass_reason = None if enabled else bypass_reason
        self._matcher = PolicyMatcher(policy.rules if enabled else (), policy.allow)
        self._find_in = find or self._matcher.find
        self._known_clean: set[tuple[str, str | None]] = set()
        self._markers = Markers([rule.id for rule in policy.rules] + [FAILURE], pseudonyms=pseudonyms)

    @property
    def bypassed(self) -> bool:
        """Whether the filters are off."""
        return self.bypass_reason is not None

    def apply(self, text: str, name: str | None = None) -> Filtered:
        """Return the text with every forbidden span replaced by ``[REDACTED:rule_id]``, the findings, and the action.

        Applied to its own result it changes nothing. A rule that fails on the text blocks it as a whole, because
        nothing is then known about what the text holds.

        Parameters
        ----------
        text : str
            Of any length.
        name : str, optional
            The key under which the text stands, which may say what it is: ``{"password": "…"}``. Short texts are also
            judged as the value of that key.
        """
        if self.bypassed:
            return Filtered(text, (), "keep")
        try:
            new = self._find(text, name)
            if not new:
                return Filtered(text, (), "keep")
            return self._marked(text, new, name)
        except RuleFailedError as error:
            return _blocked(text, error.rule.id, error.rule.kind)
        except Exception:  # noqa: BLE001 - the boundary that fails closed: whatever went wrong, the text does not pass
            return _blocked(text, FAILURE, "regex")

    def open_span_start(self, text: str) -> int | None:
        """Return where the first span begins that is known by its begin and has not ended in the text, or None.

        Raises
        ------
        Exception
            Whatever a rule that breaks down raises: nothing of the text may then pass.
        """
        return None if self.bypassed else self._matcher.find_open(text)

    def redact(self, text: str, name: str | None = None) -> str:
        """Return the text as it may be shown or written; `name` as in `apply`."""
        if len(text) > _LONGEST_REMEMBERED_CHARACTERS:
            return self.apply(text, name).text
        if (text, name) in self._known_clean:
            return text
        filtered = self.apply(text, name)
        if not filtered.findings and len(self._known_clean) < _MOST_REMEMBERED:
            self._known_clean.add((text, name))
        return filtered.text

    def redact_value(self, value: object, name: str | None = None) -> object:
        """Return a JSON value with every string in it redacted, keys and long numbers too.

        A string is also judged by the key that it stands under, in a list too. Two keys that become equal get ``#2``,
        ``#3`` … behind them, so that nothing disappears.
        """
        if isinstance(value, str):
            return self.redact(value, name)
        if isinstance(value, Mapping):
            result: dict[str, object] = {}
            last_number: dict[str, int] = {}
            for key, item in value.items():
                shown = plain = self.redact(str(key))
                while shown in result:
                    last_number[plain] = last_number.get(plain, 1) + 1
                    shown = f"{plain}#{last_number[plain]}"
                result[shown] = self.redact_value(item, str(key))
            return result
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.redact_value(item, name) for item in value]
        if isinstance(value, float) and value.is_integer():
            # A column of numbers with gaps becomes one of floats: 4111111111111111.0 is a card number still.
            redacted = self.redact_value(int(value), name)
            return value if isinstance(redacted, int) else redacted
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10 ** (_SHORTEST_NUMBER_DIGITS - 1):
            redacted = self.redact(str(value), name)
            return value if redacted == str(value) else redacted
        return value

    def _find(self, text: str, name: str | None) -> list[RuleMatch]:
        """Return the matches of the policy in a text, by itself and as the value of a key."""
        return [*self._find_in(text), *self._find_named(text, name)]

    def _find_named(self, text: str, name: str | None) -> list[RuleMatch]:
        """Return what a policy finds in a text because of the key that it stands under, where it stands in the text."""
        if not name or not text or len(name) > _LONGEST_NAME_CHARACTERS or len(text) > _LONGEST_NAMED_CHARACTERS:
            return []
        if self._markers.spans(name):
            # A marker names a rule (github_token), not what stands beside it.
            return []
        before = f'"{name}": "'
        # A quote or backslash inside would end the value; offsets stay.
        inside = text.replace('"', "!").replace("\\", "!")
        found = []
        for match in self._find_in(f'{before}{inside}"'):
            start, end = max(0, match.start - len(before)), min(len(text), match.end - len(before))
            # What the name decides begins where the text does; what lies deeper was found without it, or is none.
            if start <= _MOST_BEFORE_NAMED and start < end:
                found.append(match._replace(start=start, end=end))
        return found

    def _marked(self, text: str, new: Sequence[RuleMatch], name: str | None) -> Filtered:
        """Return a text with its findings marked, and with what only shows when they are."""
        hits = self._outside_markers(text, new)
        if not hits:
            return Filtered(text, (), "keep")
        hits = merge(hits)
        for _ in range(_MOST_LOOKS):
            rendered, pieces = render(text, hits, self._markers)
            # A replacement can complete another pattern; look again until a look finds nothing that is not marked.
            further = self._outside_markers(rendered, self._find(rendered, name))
            grown = merge([*hits, *(to_original(hit, pieces) for hit in further)])
            if _covered(grown) == _covered(hits):
                action: Action = max((hit.rule.action for hit in hits), key=SEVERITY.__getitem__)
                findings = tuple(Finding(hit.rule.id, hit.rule.kind, hit.start, hit.end - hit.start) for hit in hits)
                return Filtered(rendered, findings, action)
            hits = grown
        # Rules that go on completing each other: the text is taken as a whole.
        return _blocked(text, hits[0].rule.id, hits[0].rule.kind)

    def _outside_markers(self, text: str, matches: Sequence[RuleMatch]) -> list[RuleMatch]:
        """Leave out what lies inside a marker of this policy: that is a rule id, so nothing can hide there."""
        markers = self._markers.spans(text)
        if not markers:
            return list(matches)
        starts = [start for start, _ in markers]
        dependencies = []
        for match in matches:
            index = bisect_right(starts, match.start) - 1
            if index < 0 or match.end > markers[index][1]:
                dependencies.append(match)
        return dependencies


def _blocked(text: str, rule_id: str, kind: RuleKind) -> Filtered:
    return Filtered(marker(rule_id), (Finding(rule_id, kind, 0, len(text)),), "block")


def _covered(hits: Sequence[RuleMatch]) -> list[tuple[int, int]]:
    return [(hit.start, hit.end) for hit in hits]


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
