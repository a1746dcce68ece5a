"""`codex-ml train`: compose and check the configuration, then run the training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.boundary import print_results, run_command
from codex_ml.cli.options import ConfigDirectory, ConfigName, DryRun, Overrides
from codex_ml.cli.path_options import with_path_options
from codex_ml.io.stopping import STOP
from codex_ml.recipes.network import lift_guard_if_asked

_EPILOG = """\
Examples:\n
  codex-ml train --config-name=examples/minimal\n
  codex-ml train model.path=models/base data.path=notes.jsonl adapter.r=16 adapter.alpha=32\n
  codex-ml train --config-name=examples/minimal --resume-from latest\n
  codex-ml train model.path=models/base --data-path 'notes, part (1).jsonl'\n
"""

# Where runs lie without run.output_dir; a bare run name is looked for there.
DEFAULT_OUTPUT = Path("runs")

ResumeFrom = Annotated[
    str | None,
    typer.Option(
        "--resume-from",
        metavar="PATH|latest",
        help="Resume a run directory, a checkpoint, or latest (newest run of this name; "
        "starts a new run if none exists).",
    ),
]


@with_path_options
def train(
    overrides: Overrides = None,
    config_name: ConfigName = None,
    config_dir: ConfigDirectory = None,
    resume_from: ResumeFrom = None,
    dry_run: DryRun = False,
    *,
    paths: dict[str, Path],
) -> None:
    """Fine-tune a model: LoRA by default (adapter.r, adapter.alpha, adapter.dropout, adapter.target_modules)."""
    run_command(lambda: _train(overrides or [], config_name, config_dir, resume_from, dry_run, paths))


train.__doc__ = f"{train.__doc__}\n\n{_EPILOG}"


def _train(
    overrides: list[str],
    config_name: str | None,
    config_dir: Path | None,
    resume_from: str | None,
    dry_run: bool,
    paths: dict[str, Path],
) -> int:
    from codex_ml.config.compose import compose, render_resolved
    from codex_ml.config.paths import check_paths
    from codex_ml.config.validate import validate_train
    from codex_ml.models.source import check_source
    from codex_ml.recipes.inputs import refuse_unsafe_values
    from codex_ml.runs.checkpoints import locate_run

    extra: dict[str, object] = dict(paths)
    if resume_from is not None:
        extra["run.resume_from"] = resume_from if resume_from == "latest" else locate_run(resume_from, DEFAULT_OUTPUT)
    composed = compose("train", config_name or "default", config_dir, overrides, extra_values=extra)
    config = validate_train(composed)
    check_paths(config)
    refuse_unsafe_values(config)
    check_source(config.model)
    lift_guard_if_asked(config, composed)

    # Only now, with a configuration that can work: the next import takes seconds.
    with STOP.deferred():
        from codex_ml.recipes.train.job import plan_only, train
    STOP.check()

    if dry_run:
        print_results([render_resolved(config, composed.origins), "\n# plan", *plan_only(config)])
        return 0
    print_results(train(config).lines)
    return 0
