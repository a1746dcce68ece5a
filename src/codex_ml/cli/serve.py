"""`codex-ml serve`: an HTTP service of the OpenAI kind over a base model and its adapters."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from codex_ml.cli.boundary import run_command
from codex_ml.cli.options import ConfigDirectory, ConfigName, Overrides
from codex_ml.errors import EXIT_DONE, STOP_EXIT_CODES, ConfigError, UserError
from codex_ml.io.stopping import STOP
from codex_ml.recipes.checkpoint_config import compose_for, output_dir, run_name, warn_of_targets, with_hint
from codex_ml.recipes.network import lift_guard_if_asked

_EPILOG = """\
Examples:\n
  codex-ml serve --adapter notes=best\n
  codex-ml serve --adapter a=runs/… --adapter b=runs/… serve.port=8080\n
  codex-ml serve --model models/base\n
"""
_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    overrides: Overrides = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME=CHECKPOINT",
            help="Serve a checkpoint (PATH, RUN, latest, best) under a name; repeatable.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Base model directory (model.path).")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="PATH", help="File with the bearer token that requests must carry."),
    ] = None,
    token_variable: Annotated[
        str | None,
        typer.Option(
            "--token-variable",
            metavar="NAME",
            help="Environment variable with the bearer token, such as CODEX_ML_API_TOKEN.",
        ),
    ] = None,
    config_name: ConfigName = None,
    config_dir: ConfigDirectory = None,
    runs: Annotated[
        Path | None,
        typer.Option("--output-dir", metavar="DIR", help="Parent directory of run directories (run.output_dir)."),
    ] = None,
) -> None:
    """Serve a base model and adapters over it to clients of the OpenAI interface, on this machine by default."""
    given: dict[str, Any] = {"model.path": model, "run.output_dir": runs}
    values = {key: value for key, value in given.items() if value is not None}
    run_command(
        lambda: _serve(overrides or [], adapter or [], values, token_file, token_variable, config_name, config_dir)
    )


serve.__doc__ = f"{serve.__doc__}\n\n{_EPILOG}"


def _serve(
    overrides: list[str],
    pairs: list[str],
    values: dict[str, Any],
    token_file: Path | None,
    token_variable: str | None,
    config_name: str | None,
    config_dir: Path | None,
) -> int:
    from codex_ml.config.validate import validate_serve
    from codex_ml.models.source import check_source
    from codex_ml.runs.listing import resolve_targets

    _require_libraries()
    named = _named(pairs)
    references = list(named.values()) or ["base"]
    composed, moved = compose_for("serve", overrides, references, config_name, config_dir, values)
    try:
        config = validate_serve(composed)
    except ConfigError as error:
        hinted = with_hint(error, moved)
        if hinted is error:
            raise
        raise hinted from error
    check_source(config.model)
    runs, name_of_run = output_dir(config), run_name(composed, config_name)
    targets = {name: resolve_targets([reference], runs, name_of_run)[0] for name, reference in named.items()}
    warn_of_targets(targets.values())

    from codex_ml.serve.access import read_token

    token = read_token(token_file, token_variable, os.environ)
    lift_guard_if_asked(config, composed)

    # Only now, with a configuration that can work: the next import takes seconds.
    with STOP.deferred():
        from codex_ml.recipes.serve import serve
    STOP.check()

    cut_short_by = serve(config, targets, token)
    return EXIT_DONE if cut_short_by is None else STOP_EXIT_CODES[signal.Signals(cut_short_by)]


def _named(pairs: list[str]) -> dict[str, str]:
    """Return name -> checkpoint.

    Raises
    ------
    UserError
        If a name or a checkpoint is missing, or a name is invalid or duplicate.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        name, _, reference = pair.partition("=")
        if not reference or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", name):
            raise UserError(
                f"--adapter {pair}: a name and a checkpoint are needed",
                why="a name has letters, digits and . _ : / - only",
                fix="write --adapter NAME=CHECKPOINT, such as --adapter notes=best",
                code="CLI_OPTION_VALUE",
            )
        if name in named:
            raise UserError(
                f"--adapter {name}= is given twice",
                fix="give each adapter a name of its own",
                code="CLI_OPTION_REPEATED",
            )
        if reference == "base":
            raise UserError(
                "the base is always served",
                fix="leave --adapter …=base out; serve.base_name names it",
                code="CLI_OPTION_VALUE",
            )
        named[name] = reference
    return named


def _require_libraries() -> None:
    """Stop where the libraries of the service are not installed.

    Raises
    ------
    UserError
        With what to install.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"codex-ml serve needs {', '.join(missing)}",
            why="the service is an extra, which is not installed",
            fix="pip install 'codex-ml[serve]'",
            code="SERVE_NOT_INSTALLED",
        )
