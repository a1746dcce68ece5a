"""The program `codex-ml`: its commands, each in a file of its own that imports what is heavy only when it runs."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from codex_ml.cli.boundary import guarded, leave_before_anything_begins
from codex_ml.cli.configs import configs_app
from codex_ml.cli.data.app import data_app
from codex_ml.cli.evaluate import evaluate
from codex_ml.cli.generate import generate
from codex_ml.cli.runs.app import runs_app
from codex_ml.cli.safety import safety_app
from codex_ml.cli.serve import serve
from codex_ml.cli.train import train
from codex_ml.cli.validate import validate_command
from codex_ml.errors import EXIT_DONE, EXIT_RUN_FAILED, CodexError, OutputError, UserError
from codex_ml.io.terminal import drop_output, finish_output, open_standard_streams, write_message, write_result

app = typer.Typer(
    name="codex-ml",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
app.command()(train)
app.command()(evaluate)
app.command()(generate)
app.command()(serve)
app.command("validate")(guarded(validate_command))
app.add_typer(configs_app, name="configs")
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")
app.add_typer(safety_app, name="safety")


def _show_version(wanted: bool) -> None:
    if wanted:
        write_result(f"codex-ml {version('codex-ml')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune causal language models with LoRA on this machine, with no network."""


def refuse_undecodable(arguments: Sequence[str], directory: str) -> None:
    """Refuse names that are no UTF-8: neither a run's JSON files nor a report could hold them.

    Raises
    ------
    UserError
        With the number of the argument, or the working directory.
    """
    named = [(f"argument {number}", text) for number, text in enumerate(arguments, start=1)]
    for place, text in [*named, ("the working directory", directory)]:
        if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
            raise UserError(
                f"{place} is not UTF-8: {text.encode('utf-8', 'backslashreplace').decode()}",
                why="a run records the names of its files as UTF-8 text, and this one could not be found again by them",
                fix="rename the file or directory",
                code="CLI_NOT_UTF8",
            )


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        # Where it was removed, each command says itself what it misses there.
        return ""


def run() -> None:
    """Entry point of the console script.

    Raises
    ------
    SystemExit
        Always, with the exit code.
    """
    open_standard_streams()
    leave_before_anything_begins()
    code = finish_output(_run_arguments(sys.argv[1:]))
    # Without this the interpreter examines every object twice before it exits: a second where torch is imported.
    gc.freeze()
    raise SystemExit(code)


def _run_arguments(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; what typer finds wrong with it is shown as all text is."""
    try:
        refuse_undecodable(arguments, _working_directory())
        code = app(list(arguments), prog_name="codex-ml", standalone_mode=False)
    except TyperException as error:
        shown = io.StringIO()
        # Errors of usage come with a usage line and a hint, which only typer itself can write.
        error.show(file=shown)  # type: ignore[attr-defined]
        write_message(shown.getvalue(), end="")
        return error.exit_code
    except CodexError as error:
        write_message(error.block())
        return error.exit_code
    except BrokenPipeError:
        drop_output(sys.stdout)
        return EXIT_RUN_FAILED
    except OSError as error:
        # The help, which typer prints: commands explain their own errors.
        write_message(OutputError(error.strerror or str(error)).block())
        return EXIT_RUN_FAILED
    return code if isinstance(code, int) else EXIT_DONE


if __name__ == "__main__":
    run()
