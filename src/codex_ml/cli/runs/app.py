"""`codex-ml runs`: the commands that look at what training and evaluation left behind; list and show stand here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import guarded, print_json, print_results
from codex_ml.cli.options import AsJson, OutputDirectory, RunReference, runs_directory
from codex_ml.cli.runs.checks import reproduce_command, verify_command
from codex_ml.cli.runs.removal import remove_command
from codex_ml.io.terminal import visible_name, write_message

if TYPE_CHECKING:
    from codex_ml.runs.layout import RunLayout, RunRecord

runs_app = typer.Typer(help="List, show, verify, repeat and remove runs.", rich_markup_mode=None, no_args_is_help=True)


def list_runs(
    output_dir: OutputDirectory = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only runs of this name.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first; one whose process died without a word is closed as KILLED."""
    from codex_ml.runs.layout import read_runs
    from codex_ml.runs.listing import render_list, summarise

    directory = runs_directory(output_dir)
    found, unreadable = read_runs(directory)
    chosen = [(layout, record) for layout, record in found if name is None or record.name == name]
    summaries = [summarise(layout, _closed_if_dead(layout, record)) for layout, record in chosen]
    for item in unreadable:
        write_message(f"warning: passed over {visible_name(item.directory.name)}: {item.reason}")
    if as_json:
        print_json([summary.to_json() for summary in summaries])
    elif summaries:
        print_results([render_list(summaries)])
    else:
        named = f" named {name!r}" if name is not None else ""
        write_message(f"no runs{named} in {directory}")


def show_run(
    run: RunReference,
    output_dir: OutputDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Show one run: record, digests, checkpoints, evaluations and files."""
    from codex_ml.runs.details import describe_run, render_details
    from codex_ml.runs.layout import read_record, resolve_run

    layout = resolve_run(run, runs_directory(output_dir))
    details = describe_run(layout, _closed_if_dead(layout, read_record(layout)))
    if as_json:
        print_json(details)
    else:
        print_results([render_details(details)])


runs_app.command("list")(guarded(list_runs))
runs_app.command("show")(guarded(show_run))
runs_app.command("verify")(guarded(verify_command))
runs_app.command("reproduce")(guarded(reproduce_command))
runs_app.command("rm")(guarded(remove_command))


def _closed_if_dead(layout: RunLayout, record: RunRecord) -> RunRecord:
    if record.status != "RUNNING":
        return record
    from datetime import UTC, datetime

    from codex_ml.io.atomic import Storage
    from codex_ml.recipes.train.resume import record_crash
    from codex_ml.runs.closing import finalize_if_dead

    closed = finalize_if_dead(layout, record, datetime.now(UTC), Storage(), record_crash)
    if closed.message is not None:
        write_message(closed.message)
    return closed.record
