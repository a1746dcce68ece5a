"""`codex-ml evaluate`: find the checkpoints and their configuration, then run the evaluation recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_results, run_command
from codex_ml.cli.options import ConfigDirectory, ConfigName, DryRun, Overrides
from codex_ml.cli.path_options import with_path_options
from codex_ml.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from codex_ml.config.compose import Composed
    from codex_ml.config.schema.root import EvaluateConfig

_EPILOG = """\
Examples:\n
  codex-ml evaluate --checkpoint best\n
  codex-ml evaluate --checkpoint best run.name=notes\n
  codex-ml evaluate --checkpoint base --checkpoint best --config-name=examples/minimal\n
  codex-ml evaluate --checkpoint base model.path=models/base data.test=test.jsonl eval.metrics=[loss,perplexity]\n
"""

Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="PATH|RUN|latest|best|base",
        help="What to score; may be given several times (default: best). latest and best are of the newest run "
        "(with run.name=NAME: of the newest of that name).",
        show_default=False,
    ),
]


@with_path_options
def evaluate(
    overrides: Overrides = None,
    checkpoint: Checkpoints = None,
    config_name: ConfigName = None,
    config_dir: ConfigDirectory = None,
    dry_run: DryRun = False,
    *,
    paths: dict[str, Path],
) -> None:
    """Score saved checkpoints, or the base model, on a split: BLEU, ROUGE-L, F1, exact match, loss and more."""
    run_command(lambda: _evaluate(overrides or [], checkpoint or ["best"], config_name, config_dir, dry_run, paths))


evaluate.__doc__ = f"{evaluate.__doc__}\n\n{_EPILOG}"


def _evaluate(
    overrides: list[str],
    references: list[str],
    config_name: str | None,
    config_dir: Path | None,
    dry_run: bool,
    paths: dict[str, Path],
) -> int:
    from codex_ml.config.origins import render_resolved
    from codex_ml.config.paths import check_paths
    from codex_ml.config.validate import validate_evaluate
    from codex_ml.models.source import check_source
    from codex_ml.recipes.config_check import refuse_unsafe_values
    from codex_ml.runs.targets import resolve_targets

    composed, moved = _compose(overrides, references, config_name, config_dir, paths)
    try:
        config = validate_evaluate(composed)
    except ConfigError as error:
        hinted = _with_hint(error, moved)
        if hinted is error:
            raise
        raise hinted from error
    check_paths(config)
    refuse_unsafe_values(config)
    check_source(config.model)
    targets = resolve_targets(references, _output_dir(config), _run_name(composed, config_name))
    if not config.offline:
        from codex_ml.offline import GUARD

        GUARD.deactivate()
    if dry_run:
        names = ", ".join(target.shown for target in targets)
        print_results(
            [render_resolved(config, composed.origins), f"\n# would evaluate on {config.eval.split}: {names}"]
        )
        return 0

    # Only now, with a configuration that can work: the next import takes seconds.
    from codex_ml.recipes.evaluate import evaluate

    outcome = evaluate(config, targets)
    print_results([outcome.table, f"outputs: {outcome.directory}"])
    return 0


def _compose(
    overrides: list[str],
    references: list[str],
    config_name: str | None,
    config_dir: Path | None,
    paths: dict[str, Path],
) -> tuple[Composed, Path | None]:
    """Compose the named config; without a name, that of the run whose checkpoint is meant, if one is.

    Where there is none because the checkpoint lies in no run, that checkpoint is returned besides.
    """
    from codex_ml.config.compose import compose
    from codex_ml.config.run_file import compose_from_run_file
    from codex_ml.runs.checkpoints import resolve_checkpoint, run_of_checkpoint
    from codex_ml.runs.manifest import verify_checkpoint

    if config_name is not None or config_dir is not None or references == ["base"]:
        return compose("evaluate", config_name or "default", config_dir, overrides, extra_values=paths), None
    # Where runs lie is itself part of the config, so the defaults are asked for it first.
    defaults = compose("evaluate", "default", None, overrides, extra_values=paths)
    output_dir = Path(defaults.values["run"]["output_dir"])
    moved: Path | None = None
    for reference in references:
        directory = resolve_checkpoint(reference, output_dir, _run_name(defaults, config_name))
        if directory is None:
            continue
        # Verified before its run's config is believed: a damaged checkpoint is the thing to report.
        verify_checkpoint(directory)
        run = run_of_checkpoint(directory)
        if run is not None:
            return compose_from_run_file("evaluate", run.config, overrides, extra_values=paths), None
        moved = moved or directory
    return defaults, moved


def _run_name(composed: Composed, config_name: str | None) -> str | None:
    """Return the name of the run that ``latest`` and ``best`` are of; None where nobody gave one: any run's.

    A name counts from a config that was named, or where the user gave the value itself.
    """
    from codex_ml.config.overrides import COMMAND_LINE, ENVIRONMENT_OVERRIDES

    given = composed.origins.get("run.name") in (COMMAND_LINE, ENVIRONMENT_OVERRIDES)
    name = composed.values["run"].get("name") if given or config_name is not None else None
    # What is no name is refused when the whole config is validated.
    return name if isinstance(name, str) else None


def _with_hint(error: ConfigError, moved: Path | None) -> ConfigError:
    """Return the error with how a checkpoint outside its run gets its config, where model or data are not named."""
    if moved is None or not {"model.path", "eval.split"} & {problem.key for problem in error.problems}:
        return error
    hint = ConfigProblem(
        "--checkpoint",
        f"{moved} lies in no run, so there is no config beside it that names its model and data",
        "name the config it was trained with: --config-dir RUN --config-name config (or --config-name NAME)",
    )
    return ConfigError([*error.problems, hint])


def _output_dir(config: EvaluateConfig) -> Path:
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    return config.run.output_dir
