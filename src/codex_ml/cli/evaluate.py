"""`codex-ml evaluate`: find the checkpoints and their configuration, then run the evaluation recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import print_results, run_command
from codex_ml.cli.options import ConfigDirectory, ConfigName, DryRun, Overrides
from codex_ml.cli.path_options import with_path_options
from codex_ml.errors import ConfigError
from codex_ml.io.stopping import STOP
from codex_ml.recipes.checkpoint_config import compose_for, output_dir, run_name, warn_of_targets, with_hint
from codex_ml.recipes.network import lift_guard_if_asked

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
    from codex_ml.config.compose import render_resolved
    from codex_ml.config.paths import check_paths
    from codex_ml.config.validate import validate_evaluate
    from codex_ml.models.source import check_source
    from codex_ml.recipes.inputs import refuse_unsafe_values
    from codex_ml.runs.listing import resolve_targets

    composed, moved = compose_for("evaluate", overrides, references, config_name, config_dir, paths)
    try:
        config = validate_evaluate(composed)
    except ConfigError as error:
        hinted = with_hint(error, moved)
        if hinted is error:
            raise
        raise hinted from error
    check_paths(config)
    refuse_unsafe_values(config)
    check_source(config.model)
    targets = resolve_targets(references, output_dir(config), run_name(composed, config_name))
    warn_of_targets(targets)
    lift_guard_if_asked(config, composed)
    if dry_run:
        names = ", ".join(target.shown for target in targets)
        print_results(
            [render_resolved(config, composed.origins), f"\n# would evaluate on {config.eval.split}: {names}"]
        )
        return 0

    # Only now, with a configuration that can work: the next import takes seconds.
    with STOP.deferred():
        from codex_ml.recipes.evaluate import evaluate
    STOP.check()

    outcome = evaluate(config, targets)
    print_results([outcome.table, f"outputs: {outcome.directory}"])
    return 0
