"""The job of `data validate`: every row checked as training would."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from codex_ml.config.schema.safety import SafetySection
from codex_ml.data.problems import MAX_SHOWN, LineFault, Problems, looks_like_name
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, FaultyLine, JsonLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.formats import Record, RecordReader, map_strings
from codex_ml.errors import DataError
from codex_ml.io.json_strings import JsonPath, changed_tokens
from codex_ml.io.stopping import STOP
from codex_ml.recipes.inputs import open_filters
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
    found: list[tuple[JsonPath, Finding]]
    action: Action
    rule_id: str
    place: JsonPath


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
        found: list[tuple[JsonPath, Finding]] = []
        action: Action = "keep"
        rule_id = ""
        worst_place: JsonPath = ()

        def change(place: JsonPath, text: str) -> str:
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

    def field_name(self, place: JsonPath) -> str:
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


def _name_of(place: JsonPath) -> str | None:
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


# A rule that blocks stops a training as surely as a line that is no record.
_BLOCKED = "blocked"


@dataclass(frozen=True)
class ValidationOptions:
    """How files are read: as `data.format`, `data.columns`, `data.max_line_bytes` and `safety.policy` say."""

    record_format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    max_line_bytes: int = MAX_LINE_BYTES
    policy: str = "default"


@dataclass
class FileReport:
    """What was found in one file; ``read = records + sum(problems)``. Positions only, never content.

    Of the valid records a run leaves out those that a rule drops (``dropped_by_rule``).
    """

    name: str
    format: str | None = None
    digest: str | None = None
    byte_count: int | None = None
    read: int = 0
    records: int = 0
    empty_lines: int = 0
    unused_columns: dict[str, int] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    places: list[dict[str, Any]] = field(default_factory=list)
    refused: str | None = None
    policy: str = ""
    policy_digest: str = ""
    findings: FindingTally = field(default_factory=lambda: FindingTally(MAX_SHOWN))
    dropped_by_rule: Counter[str] = field(default_factory=Counter)

    @property
    def is_valid(self) -> bool:
        """Whether a run would take the file as it is."""
        return self.refused is None and not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "name": self.name,
            "valid": self.is_valid,
            "refused": self.refused,
            "format": self.format,
            "digest": self.digest,
            "bytes": self.byte_count,
            "records": {"read": self.read, "valid": self.records},
            "empty_lines": self.empty_lines,
            "unused_columns": dict(sorted(self.unused_columns.items())),
            "problems": {"by_reason": dict(sorted(self.problems.items())), "first": self.places},
            "findings": {
                "policy": self.policy,
                "policy_digest": self.policy_digest,
                "by_rule": dict(sorted(self.findings.by_rule.items())),
                "by_field": dict(sorted(self.findings.by_field.items())),
                "dropped_by_rule": dict(sorted(self.dropped_by_rule.items())),
                "first": self.findings.places,
            },
        }


def validate_files(paths: Sequence[Path], options: ValidationOptions) -> tuple[list[FileReport], Problems]:
    """Read every file to its end, one that is refused or not, and return what was found and all that is wrong.

    Raises
    ------
    DataError, SafetyError
        If a column or the policy cannot be used.
    """
    filters = open_filters(SafetySection(policy=options.policy))
    RecordReader(options.record_format, options.columns)
    problems = Problems()
    return [_validate(path, options, filters, problems) for path in paths], problems


def _validate(path: Path, options: ValidationOptions, filters: SafetyFilters, problems: Problems) -> FileReport:
    report = FileReport(path.name, policy=filters.policy.name, policy_digest=filters.policy.digest)
    rows = RowFilter(filters)
    reader = RecordReader(options.record_format, options.columns)
    STOP.check()
    lines = open_records(path, options.max_line_bytes)
    try:
        for line in parsed_lines(lines):
            report.read += 1
            fault = line.fault if isinstance(line, FaultyLine) else None
            if not isinstance(line, FaultyLine):
                rules_found = _look(line, rows, report)
                try:
                    _filter(reader.read(line.value), line.line_number, rows, rules_found, report)
                except ValueError as error:
                    fault = LineFault("bad_shape", str(error))
                except _BlockedError as error:
                    problems.add(f"{path.name}:{line.line_number}", str(error), _FIX_BLOCKED)
                    report.problems[_BLOCKED] += 1
                    continue
            if fault is None:
                report.records += 1
                continue
            problems.add(f"{path.name}:{line.line_number}", fault.at(line.offset))
            report.problems[fault.reason] += 1
            if len(report.places) < MAX_SHOWN:
                report.places.append({"line": line.line_number, "offset": line.offset, "reason": fault.reason})
    except DataError as error:
        report.refused = error.what
        problems.add_error(error)
    report.format, report.unused_columns = reader.format, dict(reader.unused_columns)
    report.empty_lines = lines.empty_lines
    if report.refused is None:
        report.digest, report.byte_count = lines.digest, lines.byte_count
    return report


class _BlockedError(Exception):
    """A record that the policy blocks; the message names field and rules."""


_FIX_BLOCKED = "remove the record, or change the rule in a policy of your own (safety.policy=FILE)"


def _look(line: JsonLine, rows: RowFilter, report: FileReport) -> set[str]:
    """Count what the policy finds in a row as it stands in the file, and return the rules: as `data redact` looks."""
    look = rows.look(line.value)
    for place, finding in look.found:
        report.findings.add(line.line_number, rows.field_name(place), finding)
    return {finding.rule_id for _, finding in look.found}


def _filter(record: Record, line_number: int, rows: RowFilter, rules_found: set[str], report: FileReport) -> None:
    """Ask what a run would do with a record, and count what shows only in a text made of several strings of the row."""
    dropping: list[str] = []

    def look(name: str, text: str) -> str:
        filtered = rows.apply(text)
        for finding in filtered.findings:
            if finding.rule_id not in rules_found:
                report.findings.add(line_number, name, finding)
        if filtered.action == "block":
            rules = ", ".join(sorted({finding.rule_id for finding in filtered.findings})) or "unknown"
            raise _BlockedError(f"the safety policy blocks {name} (rule {rules})")
        if filtered.action == "drop":
            dropping.append(rows.asking_rule(filtered))
        return text

    map_strings(record, look)
    report.dropped_by_rule.update(dropping[:1])
