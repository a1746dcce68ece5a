"""Files of records read with every check and through the safety filters: the job behind `codex-ml data validate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.config.schema.safety import SafetySection
from codex_ml.data.jsonl import MAX_LINE_BYTES, FaultyLine, parsed_lines
from codex_ml.data.problems import MAX_SHOWN, LineFault, Problems
from codex_ml.data.readers import open_records
from codex_ml.data.records import Record, RecordReader, map_strings
from codex_ml.errors import DataError
from codex_ml.recipes.safety_filters import open_filters
from codex_ml.safety.filters import SafetyFilters

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
    """What was found in one file; ``read = records + sum(problems)``. Positions only, never content."""

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
    findings: Counter[str] = field(default_factory=Counter)
    finding_places: list[dict[str, Any]] = field(default_factory=list)

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
            "findings": {"by_rule": dict(sorted(self.findings.items())), "first": self.finding_places},
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
    report = FileReport(path.name)
    reader = RecordReader(options.record_format, options.columns)
    lines = open_records(path, options.max_line_bytes)
    try:
        for line in parsed_lines(lines):
            report.read += 1
            fault = line.fault if isinstance(line, FaultyLine) else None
            if not isinstance(line, FaultyLine):
                try:
                    record = reader.read(line.value)
                    _filter(record, line.line_number, filters, report)
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


def _filter(record: Record, line_number: int, filters: SafetyFilters, report: FileReport) -> None:
    """Count what the safety policy finds in a record, with its place."""

    def look(name: str, text: str) -> str:
        filtered = filters.apply(text)
        for finding in filtered.findings:
            report.findings[finding.rule_id] += 1
            if len(report.finding_places) < MAX_SHOWN:
                place = {"line": line_number, "field": name, "offset": finding.start, "length": finding.length}
                report.finding_places.append({**place, "rule": finding.rule_id})
        if filtered.action == "block":
            rules = ", ".join(sorted({finding.rule_id for finding in filtered.findings})) or "unknown"
            raise _BlockedError(f"the safety policy blocks {name} (rule {rules})")
        return text

    map_strings(record, look)
