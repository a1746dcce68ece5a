"""Options for the paths of a configuration, taken as they are, for names that KEY=VALUE cannot take bare.

In ``KEY=VALUE`` a name with a space, a quote, a comma, ``=``, a bracket or ``$`` has to be quoted for the grammar as
well as for the shell. Behind ``--data-path`` it stands as the file system has it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
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
        command(*arguments, **options, paths={key: path for key, path in given.items() if path is not None})

    # Typer reads the options of a command off its signature.
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "paths"]
    added = [_parameter(name, key) for name, key in PATH_KEYS.items()]
    inside.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    inside.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    return inside


def _parameter(name: str, key: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", metavar="PATH", help=f"{key}, taken as it is.")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[Path | None, option])
