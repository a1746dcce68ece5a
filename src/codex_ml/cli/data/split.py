"""`codex-ml data split`: divides a file of records into files that share no duplicate and no group."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import MaxLineBytes, shares
from codex_ml.errors import UserError
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_ml.data.splits.command import SplitReport

_LARGEST_SEED = 2**63 - 1  # as in data.split.seed


def split(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Data file (read only); table rows become JSON lines.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Output directory; an existing one is never overwritten.")
    ],
    ratios: Annotated[
        str, typer.Option("--ratios", metavar="SHARE,…", help="Share of each split; they sum to 1.")
    ] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option("--seed", min=0, max=_LARGEST_SEED, help="Seed for split assignment.")] = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="FIELD|prompt",
            help="Keep records together that have this field (or path, such as meta.topic) in common; prompt means the "
            "prompt in every format.",
        ),
    ] = None,
    names: Annotated[
        str, typer.Option("--names", metavar="NAME,…", help="Names of the splits and their files.")
    ] = "train,valid,test",
    exact_sizes: Annotated[
        bool,
        typer.Option(
            "--exact-sizes",
            help=("Exact split sizes; needs twice the disk space, and a record that is added later can move others."),
        ),
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=NAME",
            help="Field name in the file for --group-by prompt, such as messages=chat; repeatable.",
        ),
    ] = None,
    max_line_bytes: MaxLineBytes = 16 * 1024 * 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Divide a file: a keyed hash of each record's bytes decides, so duplicates stay together and nothing moves."""
    with STOP.deferred():
        from codex_ml.data.readers.registry import open_records
        from codex_ml.data.splits.command import SplitOptions, split_file
    STOP.check()

    options = SplitOptions(
        ratios=shares(ratios),
        names=_listed(names),
        seed=seed,
        group_by=group_by,
        exact_sizes=exact_sizes,
        columns=_columns(column or [], group_by),
    )
    report = split_file(file, out, options, open_lines=partial(open_records, max_line_bytes=max_line_bytes))
    if as_json:
        answer = {**report.manifest(), "outputs": str(report.directory), "created": report.created}
        print_json(answer)
    else:
        print_results(_rendered(report))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _columns(pairs: list[str], group_by: str | None) -> dict[str, str]:
    from codex_ml.data.splits.groups import PROMPT_FIELDS

    columns = {field: name for field, _, name in (pair.partition("=") for pair in pairs)}
    for field, name in columns.items():
        if not field or not name:
            raise UserError(
                "--column: a mapping has two sides",
                fix="write --column FIELD=NAME, such as messages=chat",
                code="CLI_OPTION_VALUE",
            )
        if field not in PROMPT_FIELDS:
            raise UserError(
                f"--column: {field!r} is no field that a prompt is made of",
                fix=f"use one of {', '.join(PROMPT_FIELDS)}",
                code="CLI_OPTION_VALUE",
            )
    if columns and group_by != "prompt":
        raise UserError(
            "--column says what the prompt is called, and nothing asks for it",
            fix="leave it out, or add --group-by prompt; another field is named by --group-by itself",
            code="CLI_OPTION_WITHOUT_EFFECT",
        )
    return columns


def _rendered(report: SplitReport) -> Iterator[str]:
    source, parts = report.source, report.parts
    width = max(5, *(len(part.name) for part in parts))
    yield f"{'split':<{width}}  {'records':>13}  {'share':>8}  {'asked':>8}  {'bytes':>17}  digest"
    for part in parts:
        share = part.records / source["records"]
        yield (
            f"{part.name:<{width}}  {part.records:>13,}  {share:>8.3%}  {part.ratio:>8.3%}  {part.byte_count:>17,}  "
            f"{part.digest}"
        )
    yield f"source: {source['name']}, {source['records']:,} records, {source['bytes']:,} bytes, {source['digest']}"
    if source["empty_lines"]:
        yield f"empty lines left out: {source['empty_lines']:,}"
    yield f"seed: {report.options.seed}"
    yield f"exact duplicates of another record: {report.duplicate_records:,} (none is in two splits)"
    if (group_by := report.options.group_by) is not None:
        yield f"groups by {group_by}: {report.groups:,} (none is in two splits)"
    if not report.created:
        yield "the same split is there already; nothing was written"
    yield f"outputs: {report.directory}"
