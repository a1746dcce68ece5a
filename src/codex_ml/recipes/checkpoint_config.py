"""The config that belongs to a checkpoint: the one that was named, or that of the run in which the checkpoint lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.terminal import write_message
from codex_ml.recipes.network import without_recorded_network

if TYPE_CHECKING:
    from codex_ml.config.compose import Command, Composed
    from codex_ml.config.schema.root import RunConfig
    from codex_ml.runs.listing import Target


def compose_for(
    command: Command,
    overrides: list[str],
    references: list[str],
    config_name: str | None,
    config_dir: Path | None,
    paths: Mapping[str, object],
    emit: Callable[[str], None] = write_message,
) -> tuple[Composed, Path | None]:
    """Compose the named config; without a name, that of the run whose checkpoint is meant, if one is.

    If the checkpoint is not inside a run, the defaults and the directory of the checkpoint are returned. The config of
    a run never lifts the network guard.
    """
    from codex_ml.config.compose import compose
    from codex_ml.config.run_file import compose_from_run_file
    from codex_ml.runs.checkpoints import run_of_checkpoint
    from codex_ml.runs.listing import find_checkpoint

    if config_name is not None or config_dir is not None or references == ["base"]:
        return compose(command, config_name or "default", config_dir, overrides, extra_values=paths), None
    # Where runs lie is itself part of the config, so the defaults are asked for it first.
    defaults = compose(command, "default", None, overrides, extra_values=paths)
    runs = Path(defaults.values["run"]["output_dir"])
    moved: Path | None = None
    for reference in references:
        # Verified before its run's config is believed: a damaged checkpoint is the thing to report.
        directory = find_checkpoint(reference, runs, run_name(defaults, config_name)).directory
        if directory is None:
            continue
        run = run_of_checkpoint(directory)
        if run is not None:
            composed = compose_from_run_file(command, run.config, overrides, extra_values=paths)
            return without_recorded_network(composed, emit), None
        moved = moved or directory
    return defaults, moved


def warn_of_targets(targets: Iterable[Target], emit: Callable[[str], None] = write_message) -> None:
    """Print the warnings of checkpoints that were resolved, such as a best checkpoint without any validation."""
    for target in targets:
        if target.warning is not None:
            emit(f"warning: {target.warning}")


def run_name(composed: Composed, config_name: str | None) -> str | None:
    """Return the name of the run that ``latest`` and ``best`` are of; None where nobody gave one: any run's.

    A name counts from a config that was named, or where the user gave the value itself.
    """
    from codex_ml.config.overrides import COMMAND_LINE, ENVIRONMENT_OVERRIDES

    given = composed.origins.get("run.name") in (COMMAND_LINE, ENVIRONMENT_OVERRIDES)
    name = composed.values["run"].get("name") if given or config_name is not None else None
    # What is no name is refused when the whole config is validated.
    return name if isinstance(name, str) else None


def with_hint(error: ConfigError, moved: Path | None) -> ConfigError:
    """Return the error with how a checkpoint outside its run gets its config, where model or data are not named."""
    if moved is None or not {"model.path", "eval.split"} & {problem.key for problem in error.problems}:
        return error
    hint = ConfigProblem(
        "--checkpoint",
        f"{moved} is not inside a run directory, so its config is unknown",
        "name the config it was trained with: --config-dir RUN --config-name config (or --config-name NAME)",
        code="RUN_NOT_FOUND",
    )
    return ConfigError([*error.problems, hint])


def output_dir(config: RunConfig) -> Path:
    """Return where the runs of a config lie."""
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    return config.run.output_dir
