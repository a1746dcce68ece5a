"""`codex-ml configs`: a config to start from, out of those that come with the toolkit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import guarded, print_results
from codex_ml.io.terminal import write_message

configs_app = typer.Typer(help="List, show and copy the packaged configs.", rich_markup_mode=None, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a packaged config, such as examples/minimal.")]


def list_configs() -> None:
    """List every config by name: whole ones for --config-name, then the choices of each section."""
    from codex_ml.config.shipped import list_shipped

    configs = list_shipped()
    width = max(len(config.name) for config in configs)
    print_results(f"{config.name:<{width}}  {config.summary}" for config in configs)


def show_config(name: Name) -> None:
    """Print a config, led by a line that says where it lies."""
    from codex_ml.config.shipped import find_shipped

    config = find_shipped(name)
    print_results([f"# {config.path}", config.path.read_text("utf-8").removesuffix("\n")])


def copy_config(
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Target directory; created if absent.")],
) -> None:
    """Copy a config into a directory of your own, ready to be changed; nothing is overwritten."""
    from codex_ml.config.shipped import copy_shipped, find_shipped

    copied = copy_shipped(find_shipped(name), directory, shown=shlex.quote(str(directory)))
    print_results([str(copied.path)])
    write_message(f"use it: {copied.usage}")


configs_app.command("list")(guarded(list_configs))
configs_app.command("show")(guarded(show_config))
configs_app.command("copy")(guarded(copy_config))
