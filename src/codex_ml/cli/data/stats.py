"""`codex-ml data stats`: record counts, lengths, duplicates, and overlaps between files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import FormatColumns, MaxLineBytes, RecordFormatName, column_names
from codex_ml.cli.options import AsJson
from codex_ml.io.stopping import STOP

_MOST_PLACES = 3


def stats(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Data files; the training file first.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="PATH", help="Model or tokenizer directory; adds token counts."),
    ] = None,
    record_format: RecordFormatName = "auto",
    column: FormatColumns = None,
    near_records: Annotated[
        int,
        typer.Option(
            "--near-records", min=0, help="Maximum records per file to scan for near-duplicates; 0 disables the scan."
        ),
    ] = 20_000,
    near_threshold: Annotated[
        float,
        typer.Option("--near-threshold", min=0.5, max=1.0, help="Near-duplicate similarity threshold."),
    ] = 0.8,
    max_line_bytes: MaxLineBytes = 16 * 1024 * 1024,
    as_json: AsJson = False,
) -> None:
    """Count records, lengths, duplicates and overlaps between files; content is never shown."""
    with STOP.deferred():
        from codex_ml.data.inspect.statistics import StatisticsOptions
        from codex_ml.recipes.data.stats import collect_statistics
    STOP.check()

    options = StatisticsOptions(record_format, column_names(column), near_records, near_threshold, max_line_bytes)
    found = collect_statistics(files, options, model)
    if as_json:
        print_json(found)
    else:
        print_results(_rendered(found))


def _rendered(found: Mapping[str, Any]) -> Iterator[str]:
    for file in found["files"]:
        yield (
            f"{file['name']}: {file['records']:,} records, {file['bytes']:,} bytes, format {file['format']}, "
            f"{file['digest']}"
        )
        if file["empty_lines"]:
            yield f"  empty lines: {file['empty_lines']:,}"
        yield f"  distinct: {file['distinct_records']:,} records, {file['distinct_prompts']:,} prompts"
        duplicates = file["exact_duplicates"]
        yield (
            f"  exact duplicates: {duplicates['records']:,} records repeat an earlier one"
            + _places(duplicates["lines"])
        )
        yield f"  near duplicates: {_near(file, found['near_threshold'])}"
        yield from _lengths("characters", file["characters"])
        if file["tokens"] is not None:
            yield from _lengths("tokens", file["tokens"])
            yield f"  supervised: {_share(file['tokens'])}"
    if not any(file["tokens"] for file in found["files"]):
        yield "tokens and supervision are counted with --model PATH"
    for overlap in found["overlaps"]:
        near = overlap["near"]
        near_text = "" if near is None else f", {near['records']:,} nearly ({near['looked_at']:,} looked at)"
        yield (
            f"{overlap['file']} in {overlap['in']}: {overlap['records']:,} of {overlap['of']:,} records byte for byte, "
            f"{overlap['records_by_prompt']:,} by prompt{near_text}{_places(overlap['lines'])}"
        )
    for warning in found["warnings"]:
        yield f"warning: {warning}"


def _near(file: Mapping[str, Any], threshold: float) -> str:
    near = file["near_duplicates"]
    if near is None:
        return "not looked for (--near-records 0)"
    whole = near["looked_at"] == file["distinct_records"]
    looked = f"{near['looked_at']:,} of {file['distinct_records']:,} distinct records looked at"
    note = looked if whole else f"only {looked}: a pair is found where both are; raise --near-records"
    return f"{near['records']:,} records are similar to an earlier one by {threshold:g} or more ({note})" + _places(
        near["lines"]
    )


def _places(pairs: list[list[Any]]) -> str:
    """Return the first lines that were found, each with the line that it repeats."""
    if not pairs:
        return ""
    shown = ", ".join(f"{pair[0]} = {pair[1]}" for pair in pairs[:_MOST_PLACES])
    return f"; lines {shown}{' …' if len(pairs) > _MOST_PLACES else ''}"


def _lengths(unit: str, lengths: Mapping[str, Any]) -> Iterator[str]:
    from codex_ml.data.inspect.statistics import picture

    percentiles = lengths["percentiles"]
    yield (
        f"  {unit}: {lengths['total']:,}; a record has {lengths['min']:,} to {lengths['max']:,}, on average "
        f"{lengths['mean']:,.1f}, half of them at most {percentiles['50']:,}, 95% at most {percentiles['95']:,}, "
        f"99% at most {percentiles['99']:,}"
    )
    encoding = (sys.stdout.encoding or "").lower()
    for line in picture(lengths["histogram"], "█" if encoding.startswith("utf") else "#"):
        yield f"    {line}"


def _share(tokens: Mapping[str, Any]) -> str:
    share = tokens["supervised"] / tokens["total"] if tokens["total"] else 0.0
    return f"{tokens['supervised']:,} of {tokens['total']:,} tokens ({share:.1%})"
