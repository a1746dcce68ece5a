"""What the safety policy finds in the rows of a file: every string of a row looked at, findings counted and placed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from codex_ml.data.json_strings import Place, changed_tokens
from codex_ml.data.problems import looks_like_name
from codex_ml.safety.filters import Action, Filtered, Finding, SafetyFilters
from codex_ml.safety.rendering import SEVERITY, marker

# A finding in a key itself; and a key that is not shown: of a file from somebody else, keys may be names of persons.
_IN_KEY = "(key)"
_HIDDEN_KEY = "(hidden)"
# Names of keys, roles and the like come again in every row: so long, and so many of them, are remembered as clean.
_LONGEST_REMEMBERED_CHARACTERS = 64
_MOST_REMEMBERED = 1 << 16
# A file may have a field of its own in every row.
_MOST_FIELDS = 1000
_OTHER_FIELDS = "(other fields)"
_ELEMENT = re.compile(r"\[[0-9]+\]")


class RowLook(NamedTuple):
    """What came of one row.

    ``changed`` is as `changed_tokens` returns it, ``action`` that of the severest string, ``rule_id`` and ``place``
    the rule that asks for it and where.
    """

    changed: dict[int, str]
    found: list[tuple[Place, Finding]]
    action: Action
    rule_id: str
    place: Place


class RowFilter:
    """Shows every string of a row to the safety filters, keys and long whole numbers too.

    Parameters
    ----------
    filters : SafetyFilters
        The policy in force.
    """

    def __init__(self, filters: SafetyFilters) -> None:
        self._filters = filters
        self._actions = {rule.id: rule.action for rule in filters.policy.rules}
        self._clean: set[tuple[str | None, str]] = set()
        self._seen: dict[tuple[str | None, str], Filtered] = {}

    def look(self, value: Mapping[str, Any]) -> RowLook:
        """Return what the policy finds in a row, and what it makes of it."""
        self._seen.clear()
        found: list[tuple[Place, Finding]] = []
        action: Action = "keep"
        rule_id = ""
        worst_place: Place = ()

        def change(place: Place, text: str) -> str:
            nonlocal action, rule_id, worst_place
            filtered = self.apply(text, _name_of(place))
            if not filtered.findings:
                return filtered.text
            found.extend((place, finding) for finding in filtered.findings)
            if SEVERITY[filtered.action] > SEVERITY[action]:
                action, rule_id, worst_place = filtered.action, self.asking_rule(filtered), place
            return filtered.text

        return RowLook(changed_tokens(value, change), found, action, rule_id, worst_place)

    def apply(self, text: str, name: str | None = None) -> Filtered:
        """Return a text after the filters; one that stands in a row twice, or is short and clean, is read once."""
        if (name, text) in self._clean:
            return Filtered(text, (), "keep")
        filtered = self._seen.get((name, text))
        if filtered is None:
            filtered = self._seen[name, text] = self._filters.apply(text, name)
            is_short = len(text) <= _LONGEST_REMEMBERED_CHARACTERS and len(self._clean) < _MOST_REMEMBERED
            if is_short and filtered.action == "keep":
                self._clean.add((name, text))
        return filtered

    def field_name(self, place: Place) -> str:
        """Return what a place is called, as in ``messages[2].content``; a key that may be content is not shown."""
        name = ""
        for part in place:
            if isinstance(part, int):
                name += f"[{part}]"
            else:
                name += ("." if name else "") + (_IN_KEY if part is None else self._key_name(part))
        return name

    def _key_name(self, key: str) -> str:
        findings = self.apply(key).findings
        if findings:
            return marker(findings[0].rule_id)
        return key if looks_like_name(key) else _HIDDEN_KEY

    def asking_rule(self, filtered: Filtered) -> str:
        """Return the rule that asks for the action of a text; one that failed asks for more than its action."""
        for finding in filtered.findings:
            if self._actions.get(finding.rule_id) == filtered.action:
                return finding.rule_id
        return filtered.findings[0].rule_id


def _name_of(place: Place) -> str | None:
    """Return the key under which a text stands, through lists; None for a key itself and for what has none."""
    if not place or place[-1] is None:
        return None
    return next((part for part in reversed(place) if isinstance(part, str)), None)


@dataclass
class FindingTally:
    """Findings of a file: all counted, the first placed; never content.

    Parameters
    ----------
    most_places : int
        How many are placed.
    """

    most_places: int
    by_rule: Counter[str] = field(default_factory=Counter)
    by_field: Counter[str] = field(default_factory=Counter)
    places: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line_number: int, name: str, finding: Finding) -> None:
        """Count a finding in a field named as `RowFilter.field_name` does."""
        self.by_rule[finding.rule_id] += 1
        general = _ELEMENT.sub("[]", name)
        if general not in self.by_field and len(self.by_field) >= _MOST_FIELDS:
            general = _OTHER_FIELDS
        self.by_field[general] += 1
        if len(self.places) < self.most_places:
            place = {"line": line_number, "field": name, "offset": finding.start, "length": finding.length}
            self.places.append({**place, "rule": finding.rule_id})

    @property
    def not_listed(self) -> int:
        """How many findings are counted and not placed."""
        return self.by_rule.total() - len(self.places)
