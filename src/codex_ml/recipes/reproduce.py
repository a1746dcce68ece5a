"""The job of `runs reproduce`: train again from the records of a run and compare."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import InterruptedRun, UserError
from codex_ml.io.untrusted import MAX_MEMBERSHIP_BYTES, read_json
from codex_ml.monitoring.codex_logging import read_ndjson
from codex_ml.recipes.comparison import (
    FileComparison,
    MetricComparison,
    compare_checkpoints,
    compare_metrics,
)
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.recipes.train.run_files import changed_identity
from codex_ml.recipes.verify.environment import REPORTED_ONLY
from codex_ml.recipes.verify.run import VerifiedRun
from codex_ml.runs.checkpoints import checkpoint_name, final_checkpoint, step_of
from codex_ml.runs.layout import TRAINER_STATE_NAME, TRAINING_STATE_NAME, RunLayout, find_runs, read_record
from codex_ml.runs.run_manifest import write_run_manifest
from codex_ml.runs.verification import mapping

# What a resume may change that shows in metrics, or in where a run ends; the events keep it for every process.
REPLAYED = ("logging_steps", "eval_steps", "early_stopping_patience", "early_stopping_min_delta")

_ABSENT = object()


@dataclass(frozen=True)
class Stage:
    """A part of a run under one plan; the learning rate depends on the steps that are planned.

    Attributes
    ----------
    total_steps : int
        Steps that were planned.
    last_step : int
        The last step that was made under this plan and is still part of the run.
    settings : mapping
        Values of `REPLAYED` as the process had them; empty where the events do not say.
    """

    total_steps: int
    last_step: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def stages_of(events: Iterable[Mapping[str, Any]], last_step: int, total_steps: int) -> list[Stage]:
    """Return the stages that lead to a checkpoint.

    Each process of a run writes its settings and its plan, then the step from which it goes on (``rewound``). Processes
    of one plan and one such set of settings are one stage: a resumed run is the same as one that was never interrupted.
    What a resume gave up is no part of it.

    Parameters
    ----------
    events : iterable of mapping
        The run's ``events.ndjson``, oldest first.
    last_step : int
        Step of the checkpoint.
    total_steps : int
        What the checkpoint itself says was planned; the events may have been lost.
    """
    begun: list[tuple[int, int, dict[str, Any]]] = []  # (first step not made yet, steps planned, settings)
    planned: int | None = None
    settings: dict[str, Any] = {}
    for event in events:
        kind, steps, step = event.get("kind"), event.get("steps"), event.get("step")
        params = event.get("params")
        if kind == "params" and isinstance(params, dict):
            named = {name: params.get(f"training.{name}", _ABSENT) for name in REPLAYED}
            settings = {name: value for name, value in named.items() if value is not _ABSENT}
        elif kind == "plan" and isinstance(steps, int):
            planned = steps
        elif kind == "rewound" and isinstance(step, int) and planned is not None:
            begun = [*(item for item in begun if item[0] < step), (step, planned, settings)]
            planned, settings = None, {}
    begun = [item for item in begun if item[0] < last_step]
    if not begun or begun[0][0] != 0 or begun[-1][1] != total_steps:
        return [Stage(total_steps, last_step)]
    ends = [*(start for start, _, _ in begun[1:]), last_step]
    stages: list[Stage] = []
    for (_, total, process_settings), end in zip(begun, ends, strict=True):
        if stages and (stages[-1].total_steps, stages[-1].settings) == (total, process_settings):
            stages.pop()
        stages.append(Stage(total, end, process_settings))
    return stages


REPORT_NAME = "reproduction.json"
REPORT_VERSION = 1
# More than any machine has; a number from a stranger's file must not exhaust this one.
_MOST_THREADS = 1024


@dataclass(frozen=True)
class ReproduceDependencies:
    """What a repetition uses of the outside world; tests pass others.

    Attributes
    ----------
    set_threads, set_interop_threads : callable
        Set the thread counts of torch.
    """

    train: TrainDependencies = field(default_factory=TrainDependencies)
    set_threads: Callable[[int], None] = torch.set_num_threads
    set_interop_threads: Callable[[int], None] = torch.set_num_interop_threads


@dataclass(frozen=True)
class Reproduction:
    """What came of a repetition."""

    layout: RunLayout
    of: RunLayout
    last_step: int
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]
    weights: tuple[FileComparison, ...]
    state: FileComparison | None
    metrics: MetricComparison
    tokens_agree: bool

    @property
    def identical(self) -> bool:
        """Whether weights, metrics and the very tokens trained on are the same; bits, not tolerance."""
        same_weights = bool(self.weights) and all(file.identical for file in self.weights)
        return same_weights and self.metrics.identical and self.tokens_agree

    def lines(self) -> list[str]:
        """Return it for people."""
        lines = [f"· {note}" for note in self.notes]
        for file in (*self.weights, *([self.state] if self.state is not None else [])):
            lines += file.lines()
        lines += self.metrics.lines()
        mark = "✓" if self.tokens_agree else "✗"
        lines.append(
            f"{mark} token ids and masks of every split: {'identical' if self.tokens_agree else 'they differ'}"
        )
        verdict = "identical to" if self.identical else "NOT identical to"
        return [
            *lines,
            f"{verdict} {self.of.directory.name} at step {self.last_step}",
            f"outputs: {self.layout.directory}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without a path of this machine."""
        return {
            "schema_version": REPORT_VERSION,
            "of": {"directory": self.of.directory.name, "run_id": read_record(self.of).run_id},
            "identical": self.identical,
            "last_step": self.last_step,
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
            "weights": [{"identical": file.identical, **asdict(file)} for file in self.weights],
            "training_state": None if self.state is None else {"identical": self.state.identical, **asdict(self.state)},
            "metrics": self.metrics.to_json(),
            "tokens_agree": self.tokens_agree,
        }


def reproduce(verified: VerifiedRun, into: Path, dependencies: ReproduceDependencies | None = None) -> Reproduction:
    """Train a verified run again in a new run below a directory, and compare the two.

    Parameters
    ----------
    verified : VerifiedRun
        The run, its verification passed.
    into : Path
        Where the new run is made; not where the old one lies.
    dependencies : ReproduceDependencies, optional
        Others, for tests.

    Raises
    ------
    CodexError
        If there is no checkpoint to compare with, or training fails or is interrupted.
    """
    dependencies = dependencies or ReproduceDependencies()
    checkpoint = final_checkpoint(verified.layout)
    last_step = step_of(checkpoint) or 0
    values = read_json(checkpoint / TRAINER_STATE_NAME, follow_links=False)
    stages = stages_of(_lines(verified.layout.events), last_step, values["total_steps"])
    _refuse_place(into, verified.layout)
    notes = [*_history(verified, stages, values), *_apply_threads(verified.provenance, dependencies)]
    layout = _train_stages(_config(verified, into), stages, dependencies.train)
    notes += _differences(verified.provenance, layout)
    compared = compare_checkpoints(checkpoint, layout.checkpoints / checkpoint_name(last_step))
    result = Reproduction(
        layout=layout,
        of=verified.layout,
        last_step=last_step,
        stages=tuple(stages),
        notes=tuple(notes),
        weights=tuple(file for file in compared if file.name != TRAINING_STATE_NAME),
        state=next((file for file in compared if file.name == TRAINING_STATE_NAME), None),
        metrics=compare_metrics(_lines(verified.layout.metrics), _lines(layout.metrics), last_step),
        tokens_agree=_token_digests(verified.layout) == _token_digests(layout),
    )
    storage = dependencies.train.storage
    storage.write_json(layout.directory / REPORT_NAME, result.to_json())
    # The report belongs to the new run, so its manifest names it.
    write_run_manifest(layout, read_record(layout), storage)
    return result


def require_identical(result: Reproduction) -> None:
    """Stop when the two runs are not the same.

    Raises
    ------
    UserError
        With what may be the reason.
    """
    if not result.identical:
        raise UserError(
            f"{result.of.directory.name} was not reproduced bit for bit",
            why="; ".join(result.notes) or "code, versions, machine and threads are the same",
            fix="use the versions, thread counts and processor of the run (provenance.json); equal bits are promised "
            "there only",
        )


def _refuse_place(into: Path, layout: RunLayout) -> None:
    place, run = into.resolve(), layout.directory.resolve()
    if place == run.parent or place == run or run in place.parents:
        raise UserError(
            f"--into {into}: the run itself lies there",
            why="the repetition would become the newest run of its name, which is what latest means",
            fix="name another directory; it is made if it is not there",
        )


def _config(verified: VerifiedRun, into: Path) -> TrainConfig:
    """Return the configuration of the run, with the device and number format that it chose then."""
    config = verified.config
    assert config is not None, "a verification that passed has read the configuration"
    compute, model = mapping(verified.provenance.get("compute")), config.model
    chosen = {
        key: compute[key]
        for key in ("device", "dtype")
        if getattr(model, key) == "auto" and isinstance(compute.get(key), str)
    }
    run = config.run.model_copy(update={"output_dir": into.resolve(), "resume_from": None})
    # What is to be shown is that the tokens come out of the files again, not that they were kept.
    data = config.data.model_copy(update={"cache_dir": None})
    return config.model_copy(
        update={"run": run, "data": data, "model": type(model).model_validate(model.model_dump() | chosen)}
    )


def _with_training(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with other values of training; they come from the events of the run."""
    try:
        training = type(config.training).model_validate({**config.training.model_dump(), **values})
    except ValidationError as error:
        raise UserError(
            "the settings of an earlier process of the run cannot be used",
            why=f"events.ndjson holds values that no configuration takes: {', '.join(sorted(values))}",
            fix="take a copy of the run that was not changed",
        ) from error
    return config.model_copy(update={"training": training})


def _train_stages(config: TrainConfig, stages: Sequence[Stage], dependencies: TrainDependencies) -> RunLayout:
    """Train every stage in one new run, and return it."""
    output_dir = config.run.output_dir
    assert output_dir is not None, "it was set from --into"
    earlier = {layout.directory for layout, _ in find_runs(output_dir)}
    layout: RunLayout | None = None
    for number, stage in enumerate(stages, start=1):
        stage_config = config
        if number < len(stages):
            # The last plan stands in config.yaml; those before it only in the events.
            stage_config = _with_training(config, {"max_steps": stage.total_steps, "epochs": None, **stage.settings})
        if layout is not None:
            run = stage_config.run.model_copy(update={"resume_from": layout.directory})
            stage_config = stage_config.model_copy(update={"run": run})
        try:
            _train_stage(stage_config, stage, dependencies)
        except InterruptedRun as error:
            raise _unfinished(error, _made(output_dir, config.run.name, earlier)) from error
        layout = layout or _made(output_dir, config.run.name, earlier)
    assert layout is not None, "there is at least one stage"
    return layout


def _made(output_dir: Path, name: str, earlier: Collection[Path]) -> RunLayout:
    return next(found for found, _ in find_runs(output_dir, name) if found.directory not in earlier)


def _unfinished(error: InterruptedRun, layout: RunLayout) -> InterruptedRun:
    """Return an interruption that says what helps here: a resume would be compared with nothing."""
    return InterruptedRun(
        f"{error.what.partition(';')[0]}; the repetition in {layout.directory} is unfinished and nothing was compared: "
        "run the same command again with another --into DIR, or after "
        f"codex-ml runs rm {shlex.quote(str(layout.directory))}",
        error.exit_code,
    )


def _train_stage(config: TrainConfig, stage: Stage, dependencies: TrainDependencies) -> None:
    """Train up to the last step of a stage; that it was stopped there is no fault."""
    reached = False

    def at_step(step: int) -> bool:
        nonlocal reached
        reached = step >= stage.last_step
        return reached

    try:
        train(config, dependencies, stop_at=at_step)
    except InterruptedRun:
        # Else it was the user who stopped it.
        if not reached:
            raise


def _history(verified: VerifiedRun, stages: Sequence[Stage], values: Mapping[str, Any]) -> list[str]:
    """Say what of a run that did not go straight to its end can be compared."""
    notes = []
    total, last_step = stages[-1].total_steps, stages[-1].last_step
    if len(stages) > 1:
        told = ", then ".join(f"{stage.total_steps} planned, up to step {stage.last_step}" for stage in stages)
        what = [] if len({stage.total_steps for stage in stages}) == 1 else ["the length of the run"]
        what += [
            f"training.{name}"
            for name in REPLAYED
            if any(stage.settings.get(name) != stages[0].settings.get(name) for stage in stages)
        ]
        changed = f"{', '.join(what)} {'were' if len(what) > 1 else 'was'} changed on the way"
        notes.append(f"{changed} ({told}); it is repeated in the same stages")
    stopped = mapping(values.get("trainer")).get("stop_reason")
    if stopped:
        notes.append(f"the run stopped early at step {last_step} of {total}: {stopped}")
    elif last_step < total:
        ended = f"the run is {verified.record.status} and did not reach its end"
        notes.append(f"{ended}: compared up to its last checkpoint, step {last_step} of {total}")
    if earlier := verified.provenance.get("earlier_processes"):
        notes.append(f"{len(earlier) + 1} processes worked on the run, one does now")
    notes += [
        f"{check.key}: {check.recorded} then, {check.found} now"
        for check in verified.verification.checks
        if check.allowed and not check.key.startswith(REPORTED_ONLY)
    ]
    return notes


def _apply_threads(provenance: Mapping[str, Any], dependencies: ReproduceDependencies) -> list[str]:
    """Compute in as many threads as the run did: they decide the order of additions. Say where that cannot be had."""
    recorded = mapping(provenance.get("threads"))
    notes = []
    for name, apply in (("torch", dependencies.set_threads), ("torch_interop", dependencies.set_interop_threads)):
        count = recorded.get(name)
        if not isinstance(count, int) or not 0 < count <= _MOST_THREADS:
            notes.append(f"threads.{name}: {count!r} was recorded, which cannot be used")
            continue
        try:
            apply(count)
        except RuntimeError as error:
            notes.append(f"threads.{name}: {count} was recorded and could not be set ({str(error).splitlines()[0]})")
    return notes


def _differences(provenance: Mapping[str, Any], layout: RunLayout) -> list[str]:
    """Return what code, versions, machine, threads and environment of the two runs differ in."""
    now = read_json(layout.provenance, follow_links=False)
    return [f"differs from the run: {difference}" for difference in changed_identity(provenance, now)]


def _token_digests(layout: RunLayout) -> dict[str, Any]:
    splits = read_json(layout.data_splits, MAX_MEMBERSHIP_BYTES, follow_links=False)["splits"]
    return {name: split.get("content_digest") for name, split in splits.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(read_ndjson(path))
