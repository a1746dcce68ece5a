"""Options for the paths of a configuration, taken as they are, for names that KEY=VALUE cannot take bare.

In ``KEY=VALUE`` a name with a space, a quote, a comma, ``=``, a bracket or ``$`` has to be quoted for the grammar as
well as for the shell. ``--data-path`` takes it literally.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

# Parameter and key; the option is called as `config.compose.option_name` says. A test holds this against the schema.
PATH_KEYS = {
    "model_path": "model.path",
    "model_tokenizer": "model.tokenizer",
    "data_path": "data.path",
    "data_train": "data.train",
    "data_valid": "data.valid",
    "data_test": "data.test",
    "data_cache_dir": "data.cache_dir",
    "safety_policy": "safety.policy",
    "output_dir": "run.output_dir",
}


def with_path_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each path; it takes those that were given as ``paths``, key -> path."""

    @functools.wraps(command)
    def inside(*arguments: Any, **options: Any) -> None:
        given = {key: options.pop(name) for name, key in PATH_KEYS.items()}
        paths = {key: path for key, path in given.items() if path is not None}
        paths |= _named_files(options.pop("data_file") or ())
        command(*arguments, **options, paths=paths)

    # Typer reads the options of a command off its signature.
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "paths"]
    added = [*(_parameter(name, key) for name, key in PATH_KEYS.items()), _data_file()]
    inside.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    inside.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    return inside


def _named_files(pairs: Sequence[str]) -> dict[str, Path]:
    """Return key -> path for what ``--data-file`` was given.

    Raises
    ------
    typer.BadParameter
        If a name or a path is missing, or a name is given twice.
    """
    files: dict[str, Path] = {}
    for pair in pairs:
        # A path may hold an equals sign itself, a name may not.
        name, _, path = pair.partition("=")
        if not name or not path:
            raise typer.BadParameter(f"{pair!r} has no two sides; write --data-file NAME=PATH")
        if f"data.files.{name}" in files:
            raise typer.BadParameter(f"{name} is given twice; give each file a name of its own")
        files[f"data.files.{name}"] = Path(path)
    return files


def _data_file() -> inspect.Parameter:
    option = typer.Option(
        "--data-file",
        metavar="NAME=PATH",
        help="Sets data.files.NAME to a literal path; repeatable.",
        show_default=False,
    )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter("data_file", kind, default=None, annotation=Annotated[list[str] | None, option])


def _parameter(name: str, key: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", metavar="PATH", help=f"{key}, taken as it is.")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[Path | None, option])
