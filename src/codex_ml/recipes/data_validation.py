"""Files of records read with every check and through the safety filters: the job behind `codex-ml data validate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.config.schema.safety import SafetySection
from codex_ml.data.jsonl import MAX_LINE_BYTES, FaultyLine, JsonLine, parsed_lines
from codex_ml.data.problems import MAX_SHOWN, LineFault, Problems
from codex_ml.data.readers import open_records
from codex_ml.data.records import Record, RecordReader, map_strings
from codex_ml.errors import DataError
from codex_ml.recipes.row_findings import FindingTally, RowFilter
from codex_ml.recipes.safety_filters import open_filters
from codex_ml.safety.filters import SafetyFilters
from codex_ml.stopping import STOP

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
