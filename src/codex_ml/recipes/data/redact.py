"""A file of records written anew without what a safety policy forbids: the job behind `codex-ml data redact`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.data.line_output import LineOutput
from codex_ml.data.problems import Problems
from codex_ml.data.readers.files import state_of
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, FaultyLine, JsonLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.splits.staging import staging
from codex_ml.errors import DataError, DiskSpaceError, UserError, no_room
from codex_ml.io.atomic import Storage, json_bytes
from codex_ml.io.json_strings import with_tokens
from codex_ml.recipes.data.validate import FindingTally, RowFilter
from codex_ml.recipes.inputs import ReadingProgress, emit
from codex_ml.recipes.output_files import in_real_directory, is_same_file, put_in_place, refuse_existing
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy

MOST_PLACES = 1000
_TABLES = frozenset({".csv", ".tsv", ".parquet", ".arrow"})
_FIX_BLOCKED = "remove the row, or change the rule in a policy of your own (--policy FILE); nothing was written"
_FIX_CHANGED = "redact it when nothing writes to it, or name a copy"
# Last line end, report, blocks of the filesystem.
_SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class RedactionOptions:
    """How a file is redacted.

    Attributes
    ----------
    policy : str
        Name or path of the safety policy.
    pseudonyms : bool
        Whether a value keeps a number in the whole file; takes some memory for each value.
    overwrite : bool
        Whether an output or a report that is there is replaced.
    max_line_bytes : int
        Longest line that is read.
    """

    policy: str = "default"
    pseudonyms: bool = False
    overwrite: bool = False
    max_line_bytes: int = MAX_LINE_BYTES


@dataclass
class RedactionReport:
    """What was redacted: ``read = kept + dropped``, and of the kept rows some are changed. Never content."""

    policy: str
    policy_digest: str
    pseudonyms: bool
    read: int = 0
    kept: int = 0
    changed: int = 0
    dropped_by_rule: Counter[str] = field(default_factory=Counter)
    empty_lines: int = 0
    tally: FindingTally = field(default_factory=lambda: FindingTally(MOST_PLACES))
    source: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "schema_version": 1,
            "policy": self.policy,
            "policy_digest": self.policy_digest,
            "pseudonyms": self.pseudonyms,
            "input": self.source,
            "output": self.output,
            "rows": {
                "read": self.read,
                "kept": self.kept,
                "changed": self.changed,
                "dropped": self.dropped_by_rule.total(),
            },
            "dropped_by_rule": dict(sorted(self.dropped_by_rule.items())),
            "empty_lines": self.empty_lines,
            "findings_by_rule": dict(sorted(self.tally.by_rule.items())),
            "findings_by_field": dict(sorted(self.tally.by_field.items())),
            "findings": self.tally.places,
            "not_listed": self.tally.not_listed,
        }


def redact_file(
    source: Path,
    output: Path,
    report_path: Path | None = None,
    options: RedactionOptions | None = None,
    *,
    filters: SafetyFilters | None = None,
    storage: Storage | None = None,
    progress: Callable[[Path, int], None] | None = None,
) -> RedactionReport:
    """Write a file of records with every forbidden span marked, and every other byte as it was.

    Rows keep their number and order, unless a rule drops one. A row without a finding keeps its bytes; in another one
    the strings with findings are written anew. Rows of a table become lines of JSON. Output and report appear whole
    or not at all. Memory does not grow with the file.

    Parameters
    ----------
    source, output : Path
        The file, only read, and the file to be made: packed where its name ends in ``.gz`` or ``.zst``.
    report_path : Path, optional
        Where the report is to lie as JSON.
    options : RedactionOptions, optional
        How.
    filters : SafetyFilters, optional
        Default: those of the policy of the options.
    storage : Storage, optional
        The disk.
    progress : callable, optional
        Told of each row, by the file and the offset of the row; default: a line on the error stream now and then.

    Raises
    ------
    DataError
        If the source has a faulty line, a row that a rule blocks, or changes while it is read.
    UserError
        If the policy cannot be used, or a file would be written over.
    DiskSpaceError
        If the disk is too small.
    """
    progress = progress or ReadingProgress(emit)
    options, storage = options or RedactionOptions(), storage or Storage()
    filters = filters or SafetyFilters(load_policy(options.policy), pseudonyms=options.pseudonyms)
    output = in_real_directory(output)
    report_path = None if report_path is None else in_real_directory(report_path)
    _refuse_targets(source, output, report_path, options)
    report = RedactionReport(filters.policy.name, filters.policy.digest, options.pseudonyms)
    report.output["name"] = output.name
    try:
        with ExitStack() as stack:
            made = stack.enter_context(staging(output, storage)) / "made"
            made_report = None if report_path is None else stack.enter_context(staging(report_path, storage)) / "made"
            _require_disk(source, output, made.parent, storage)
            _write_redacted(source, LineOutput(made, output, storage), options, filters, report, progress)
            if made_report is not None:
                storage.write_bytes(made_report, json_bytes(report.to_dict()))
            refuse_existing(_written(output, report_path), overwrite=options.overwrite)
            # The output last: where it lies, its report does too.
            if made_report is not None and report_path is not None:
                put_in_place(made_report, report_path, storage)
            put_in_place(made, output, storage)
    except OSError as error:
        limit = no_room(error)
        if limit is None:
            raise
        raise DiskSpaceError(
            f"{output.parent}: {limit.problem}", why="nothing was kept", fix=f"{limit.fix}, or name another disk"
        ) from error
    return report


def _write_redacted(
    source: Path,
    output: LineOutput,
    options: RedactionOptions,
    filters: SafetyFilters,
    report: RedactionReport,
    progress: Callable[[Path, int], None],
) -> None:
    """Read every row and write what may stay; stop at the end for all rows that may not."""
    problems, rows = Problems(), RowFilter(filters)
    before = state_of(source)
    with output:
        lines = open_records(source, options.max_line_bytes, output.write)
        for line in parsed_lines(lines):
            report.read += 1
            progress(source, line.offset)
            if isinstance(line, FaultyLine):
                problems.add(f"{source.name}:{line.line_number}", line.fault.at(line.offset))
            else:
                _take(line, f"{source.name}:{line.line_number}", output, rows, report, problems)
        problems.raise_if_any()
        if state_of(source) != before:
            raise DataError(f"{source.name} changed while it was redacted", fix=_FIX_CHANGED)
        report.output["digest"] = output.finish()
        report.output["bytes"] = output.byte_count
    report.empty_lines = lines.empty_lines
    report.source = {"name": source.name, "digest": lines.digest, "bytes": lines.byte_count}


def _take(
    line: JsonLine, where: str, output: LineOutput, rows: RowFilter, report: RedactionReport, problems: Problems
) -> None:
    """Write one row as it may stay, or note why not."""
    look = rows.look(line.value)
    for place, finding in look.found:
        report.tally.add(line.line_number, rows.field_name(place), finding)
    if look.action == "block":
        named = f"{rows.field_name(look.place)} (rule {look.rule_id})"
        problems.add(where, f"the safety policy blocks {named}", _FIX_BLOCKED)
    elif problems.count:
        # Nothing will be kept; the rest is looked at for its faults.
        return
    elif look.action == "drop":
        report.dropped_by_rule[look.rule_id] += 1
    else:
        report.kept += 1
        report.changed += bool(look.changed)
        output.write((with_tokens(line.raw, look.changed) if look.changed else line.raw) + line.line_end)


def _refuse_targets(source: Path, output: Path, report_path: Path | None, options: RedactionOptions) -> None:
    """Stop before anything is read when a file would be lost, or be called what it is not."""
    if output.suffix.lower() in _TABLES:
        raise UserError(
            f"--output: {output.name} is the name of a table",
            why="what is written is JSON Lines, one row a line",
            fix="give it the ending .jsonl, .jsonl.gz or .jsonl.zst",
        )
    read = [("--input", source)]
    if (policy_path := Path(options.policy)).is_file():
        read.append(("--policy", policy_path))
    written = _written(output, report_path)
    for number, (option, path) in enumerate(written):
        for other_option, other in [*read, *written[:number]]:
            if is_same_file(path, other):
                raise UserError(
                    f"{option} and {other_option} name one file: {path.name}",
                    why="it would be written over, and a redaction cannot be taken back",
                    fix=f"name another file: {option} PATH",
                )
    refuse_existing(written, overwrite=options.overwrite)


def _written(output: Path, report_path: Path | None) -> list[tuple[str, Path]]:
    return [("--output", output)] + ([] if report_path is None else [("--report", report_path)])


def _require_disk(source: Path, output: Path, directory: Path, storage: Storage) -> None:
    state = state_of(source)
    if state is None or source.suffix.lower() in _TABLES or source.suffix.lower() != output.suffix.lower():
        # How much comes out is not known.
        return
    needed, free = state[0] + _SPARE_BYTES, storage.free_bytes(directory)
    if free < needed:
        raise DiskSpaceError(
            f"{output.parent}: the disk is too small for the redacted file",
            why=f"needed are about {needed} bytes, free are {free}",
            fix="free space, or name a file on another disk",
        )
