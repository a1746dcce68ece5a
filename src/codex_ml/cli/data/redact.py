"""`codex-ml data redact`: rewrites a file with its safety findings redacted, every other byte unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import MaxLineBytes
from codex_ml.cli.options import AsJson
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from codex_ml.recipes.data.redact import RedactionReport

_MOST_SHOWN = 20


def redact(
    source: Annotated[
        Path,
        typer.Option("--input", metavar="PATH", help="Data file (read only); table rows become JSON lines."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="PATH", help="Output file; compressed if its name ends in .gz or .zst."),
    ],
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="PATH", help="Write a JSON report of rules and positions, without content."),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME|FILE", help="Safety policy to redact with.")
    ] = "default",
    pseudonyms: Annotated[
        bool,
        typer.Option(
            "--pseudonyms", help=("Number redacted values: [REDACTED:email:3] is the same address in the whole file.")
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing output or report.")] = False,
    max_line_bytes: MaxLineBytes = 16 * 1024 * 1024,
    as_json: AsJson = False,
) -> None:
    """Mark what the policy forbids in every string of every row; the rest of the file stays byte for byte."""
    with STOP.deferred():
        from codex_ml.recipes.data.redact import RedactionOptions, redact_file
    STOP.check()

    options = RedactionOptions(policy, pseudonyms, overwrite, max_line_bytes)
    done = redact_file(source, output, report, options)
    if as_json:
        print_json({**done.to_dict(), "outputs": str(output)})
    else:
        print_results(_rendered(done, output, report))


def _rendered(done: RedactionReport, output: Path, report: Path | None) -> Iterator[str]:
    dropped, tally = done.dropped_by_rule.total(), done.tally
    yield (
        f"{done.source['name']}: {done.read:,} rows read, {done.kept:,} kept, {done.changed:,} of them changed, "
        f"{dropped:,} dropped"
    )
    for what, counts in (
        ("dropped by rule", done.dropped_by_rule),
        ("findings by rule", tally.by_rule),
        ("findings by field", tally.by_field),
    ):
        if counts:
            yield f"  {what}: {', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}"
    for place in tally.places[:_MOST_SHOWN]:
        where = f"{place['field']} at {place['offset']}, length {place['length']}"
        yield f"    line {place['line']}: {place['rule']} in {where}"
    if (more := tally.by_rule.total() - len(tally.places[:_MOST_SHOWN])) > 0:
        yield f"    and {more:,} more"
    yield f"policy: {done.policy}, {done.policy_digest}"
    yield f"input: {done.source['bytes']:,} bytes, {done.source['digest']}"
    yield f"output: {done.output['bytes']:,} bytes, {done.output['digest']}"
    if report is not None:
        yield f"report: {report}"
    yield f"outputs: {output}"
