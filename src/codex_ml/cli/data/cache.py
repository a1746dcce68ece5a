"""`codex-ml data cache list | verify | clear`: the tokenised data that runs keep for their next start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import guarded, print_json, print_results
from codex_ml.cli.options import DEFAULT_DIRECTORY, AsJson
from codex_ml.errors import DataError
from codex_ml.io.terminal import write_message

cache_app = typer.Typer(
    help="List, verify and clear the token cache.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        help=("Cache directory, as in data.cache_dir (default: runs/.token-cache in the working directory)."),
    ),
]


def list_cache(cache_dir: CacheDirectory = None, as_json: AsJson = False) -> None:
    """List the entries: size, days since the last use, and the files they were made from; newest use first."""
    from codex_ml.data.storage.listing import look_into
    from codex_ml.io.clock import utc_now

    directory = _directory(cache_dir)
    content = look_into(directory)
    if as_json:
        print_json([item.to_json() for item in content.items])
        return
    now = utc_now()
    print_results(item.line(now) for item in content.items)
    total = sum(item.byte_count for item in content.items)
    write_message(f"{len(content.items)} entries, {total:,} bytes in {directory}")
    _say_unknown(content.unknown)


def verify_cache(cache_dir: CacheDirectory = None) -> None:
    """Read every entry to its last byte and compare SHA-256; exit 2 where one is damaged."""
    from codex_ml.data.storage.listing import check_items, look_into

    content = look_into(_directory(cache_dir))
    items = [item for item in content.items if item.state != "unfinished"]
    if unfinished := len(content.items) - len(items):
        write_message(f"{unfinished} unfinished, not read: being built, or left behind")
    if damaged := check_items(items):
        named = "".join(f"\n       {item.path.name}: {item.fault}" for item in damaged)
        raise DataError(
            f"{len(damaged)} of {len(items)} entries are damaged",
            why=f"they are not what was written:{named}",
            fix="codex-ml data cache clear deletes them; the next run that needs one builds it again",
            code="DATA_CACHE_DAMAGED",
        )
    print_results([f"{len(items)} entries are what was written"])


def clear_cache(
    cache_dir: CacheDirectory = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", min=0, help="Only entries that were not used for this many days."),
    ] = None,
) -> None:
    """Delete cache entries. Runs that use one continue, and the next run builds it again. Other files are kept."""
    from datetime import timedelta

    from codex_ml.data.storage.listing import clear
    from codex_ml.io.atomic import Storage
    from codex_ml.io.clock import utc_now

    used_before = None if older_than is None else utc_now() - timedelta(days=older_than)
    removed, left = clear(_directory(cache_dir), used_before, Storage())
    print_results([f"deleted {len(removed)} entries, {sum(item.byte_count for item in removed):,} bytes"])
    if left.items:
        write_message(f"{len(left.items)} stay (used since, or being built)")
    _say_unknown(left.unknown)


def _directory(given: Path | None) -> Path:
    return DEFAULT_DIRECTORY / ".token-cache" if given is None else given


def _say_unknown(names: tuple[str, ...]) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        write_message(f"warning: not of the cache, and never touched: {shown}")


cache_app.command("list")(guarded(list_cache))
cache_app.command("verify")(guarded(verify_cache))
cache_app.command("clear")(guarded(clear_cache))
