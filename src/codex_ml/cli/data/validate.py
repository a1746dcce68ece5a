"""`codex-ml data validate`: reads files with every check of a run, and says what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import FormatColumns, MaxLineBytes, RecordFormatName, column_names
from codex_ml.cli.options import AsJson
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from codex_ml.recipes.data.validate import FileReport


def validate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Data files: .jsonl, .jsonl.gz, .jsonl.zst, .csv, .tsv, .parquet, …"),
    ],
    record_format: RecordFormatName = "auto",
    column: FormatColumns = None,
    max_line_bytes: MaxLineBytes = 16 * 1024 * 1024,
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME|FILE", help="Safety policy to count findings with.")
    ] = "default",
    as_json: AsJson = False,
) -> None:
    """Check files of records, each to its end: exit code 0 where a run would take them, 2 where it would not."""
    with STOP.deferred():
        from codex_ml.recipes.data.validate import ValidationOptions, validate_files
    STOP.check()

    options = ValidationOptions(record_format, column_names(column), max_line_bytes, policy)
    reports, problems = validate_files(files, options)
    if as_json:
        answer = {"valid": all(report.is_valid for report in reports), "files": [item.to_dict() for item in reports]}
        print_json(answer)
    else:
        print_results(line for report in reports for line in _rendered(report))
    problems.raise_if_any()


def _rendered(report: FileReport) -> Iterator[str]:
    if report.refused is not None:
        yield f"invalid: {report.name}: not read to its end: {report.refused}"
        return
    mark = "valid" if report.is_valid else "invalid"
    yield (
        f"{mark}: {report.name}: {report.records:,} of {report.read:,} records are valid, format {report.format}, "
        f"{report.byte_count:,} bytes, {report.digest}"
    )
    for what, counts in (
        ("problems", report.problems),
        ("safety findings", report.findings.by_rule),
        ("findings by field", report.findings.by_field),
        ("records that the policy leaves out of a run", report.dropped_by_rule),
        ("keys that the format does not use", report.unused_columns),
    ):
        if counts:
            yield f"  {what}: {', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}"
    for place in report.findings.places:
        where = f"{place['field']} at {place['offset']}, length {place['length']}"
        yield f"    line {place['line']}: {place['rule']} in {where}"
    if report.findings.not_listed:
        yield f"    and {report.findings.not_listed:,} more"
    if report.empty_lines:
        yield f"  empty lines: {report.empty_lines:,}"
