"""`codex-ml data prepare`: raw text, tables or JSON into clean records, splits and perhaps a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import column_names, shares
from codex_ml.errors import UserError
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from codex_ml.data.prepare.registry import Entry, Preparer
    from codex_ml.recipes.data.prepare import Prepared
    from codex_ml.registry import Registry

_EPILOG = """\
Examples:\n
  codex-ml data prepare --source notes.csv --column prompt=question --column completion=answer --out notes\n
  codex-ml data prepare text --source book.txt --unit paragraph --tokenizer 2048 --out book\n
  codex-ml data prepare --list\n
"""


def prepare(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Preparer: records, text, or another from --list.")
    ] = "records",
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", metavar="PATH", help="Raw file or directory; repeatable.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Output directory, created or updated.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=PATH",
            help=("Path of a record field in the raw row, such as completion=answer.text; repeatable."),
        ),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Required record format.")
    ] = None,
    records_at: Annotated[
        str | None, typer.Option("--records-at", metavar="PATH", help="Path of the list in a .json file.")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="paragraph|line|file", help="Unit of running text that becomes a record."),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option("--ratios", metavar="SHARE,SHARE,SHARE", help="Shares of train, valid and test.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed for split assignment.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", metavar="FIELD|prompt", help="Field whose equal values stay in one split."),
    ] = None,
    exact_sizes: Annotated[bool, typer.Option("--exact-sizes", help="Exact split sizes.")] = False,
    tokenizer: Annotated[
        int | None,
        typer.Option(
            "--tokenizer", metavar="SIZE", help="Train a tokenizer with this vocabulary size on the train split."
        ),
    ] = None,
    on_bad_record: Annotated[
        str | None,
        typer.Option("--on-bad-record", metavar="error|drop", help="How to handle invalid rows."),
    ] = None,
    max_bad_share: Annotated[
        float | None,
        typer.Option("--max-bad-share", metavar="SHARE", help="Maximum share of dropped rows."),
    ] = None,
    preparer_dir: Annotated[
        Path | None,
        typer.Option(
            "--preparer-dir",
            metavar="DIR",
            help=("Directory of your own preparers (NAME/preparer.yaml, NAME/preparer.py); their code is executed."),
        ),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Download the raw file of the preparer if no source is given.")
    ] = False,
    as_list: Annotated[bool, typer.Option("--list", help="List the preparers and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make clean records, splits and perhaps a tokenizer of raw files; again, and only what changed is written."""
    import dataclasses

    from codex_ml.data.prepare.registry import find_preparers, get_preparer

    registry = find_preparers(preparer_dir)
    if as_list:
        _list(registry, as_json)
        return
    preparer = get_preparer(registry, name)
    given = {
        "columns": column_names(column) or None,
        "format": format_name,
        "records_at": records_at,
        "unit": unit,
        "vocabulary_size": tokenizer,
        "on_bad_record": on_bad_record,
        "max_bad_share": max_bad_share,
        "split": {
            "ratios": None if ratios is None else shares(ratios),
            "seed": seed,
            "group_by": group_by,
            "exact_sizes": exact_sizes or None,
        },
    }
    preparer = dataclasses.replace(preparer, config=_with_options(preparer, given))
    if out is None:
        raise UserError("--out is missing", fix="name the directory to be made: --out DIR", code="CLI_OPTION_MISSING")

    # Only now: the rest of it takes a moment to import.
    with STOP.deferred():
        from codex_ml.io.fetching import Fetcher
        from codex_ml.recipes.data.prepare import PrepareDependencies, prepare_data
    STOP.check()

    done = prepare_data(name, preparer, source or [], out, PrepareDependencies(fetch_fn=Fetcher(online)))
    if as_json:
        answer = {**dataclasses.asdict(done), "directory": str(done.directory)}
        print_json(answer)
    else:
        print_results(_rendered(done))


prepare.__doc__ = f"{prepare.__doc__}\n\n{_EPILOG}"


def _with_options(preparer: Preparer, given: dict[str, Any]) -> Any:
    from codex_ml.data.prepare.registry import checked_config

    values = preparer.config.model_dump()
    split = {key: value for key, value in given.pop("split").items() if value is not None}
    values["split"] |= split
    values |= {key: value for key, value in given.items() if value is not None}
    return checked_config(values, "options")


def _list(registry: Registry[Entry], as_json: bool) -> None:
    from codex_ml.data.prepare.registry import get_preparer

    found = {name: get_preparer(registry, name).config for name in registry.names()}
    if as_json:
        print_json({name: config.model_dump(mode="json") for name, config in found.items()})
        return
    width = max(map(len, found))
    print_results(f"{name:<{width}}  {config.description}" for name, config in found.items())


def _rendered(done: Prepared) -> Iterator[str]:
    width = max(map(len, done.changes))
    for name, change in done.changes.items():
        yield f"{name:<{width}}  {change}"
    account = done.account
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in account["dropped"].items())
    yield f"rows read: {account['rows_read']:,} = records {account['records_written']:,}" + (
        f" + dropped {sum(account['dropped'].values()):,} ({dropped})" if dropped else " + dropped 0"
    )
    if account["numbers_as_text"]:
        yield f"numbers written as text: {account['numbers_as_text']:,}"
    yield "splits: " + ", ".join(f"{name} {count:,}" for name, count in done.splits.items())
    yield f"outputs: {done.directory}"
