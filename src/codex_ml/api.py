"""Python API: load a configuration, train, evaluate and generate."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.errors import UserError
from codex_ml.offline import private_session

if TYPE_CHECKING:
    from codex_ml.config.compose import Command, Composed
    from codex_ml.config.schema.root import EvaluateConfig, GenerateConfig
    from codex_ml.eval.results import Prediction
    from codex_ml.generation.requests import Generation
    from codex_ml.recipes.memory_records import Records
    from codex_ml.runs.listing import Target
    from codex_ml.training.hooks import Hook

_LOGGER = logging.getLogger("codex_ml")
_WARNING = "warning: "
_RUNS = Path("runs")
_SPLIT_PREFIXES = {"train": "", "valid": "validation_"}
Overrides = Mapping[str, object] | Sequence[str]


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes
    ----------
    directory : Path
        The run directory.
    best_checkpoint : Path
        The checkpoint with the lowest validation loss; the last one if the run never validated.
    metrics : mapping
        Last logged value of each training metric, and of each validation metric as ``validation_<name>``.
    """

    directory: Path
    best_checkpoint: Path
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """The scores of one checkpoint.

    Attributes
    ----------
    directory : Path
        The directory with the result files.
    metrics : mapping
        Value of each metric by name.
    predictions : tuple of Prediction
        In the order of the records, after the safety filters; empty if no metric needs generated text.
    """

    directory: Path
    metrics: Mapping[str, float]
    predictions: tuple[Prediction, ...]


def load_config(name: str = "default", *, overrides: Overrides = (), config_dir: str | Path | None = None) -> Composed:
    """Compose and validate a training configuration.

    Without data in the configuration, `train` validates it together with the records that it is given.

    Parameters
    ----------
    name : str
        Name below the configuration directory, such as ``examples/minimal``.
    overrides : mapping or sequence of str
        Dotted keys and values, or overrides in Hydra's grammar.
    config_dir : str or Path, optional
        A directory that is searched before the packaged configurations.

    Raises
    ------
    ConfigError
        With every problem found.
    """
    from codex_ml.config.compose import compose
    from codex_ml.config.validate import validate_train

    values, texts = _split_overrides(overrides)
    composed = compose("train", name, Path(config_dir) if config_dir else None, texts, extra_values=values)
    data = composed.values["data"]
    if any(data.get(key) for key in ("path", "files", "train")):
        validate_train(composed)
    return composed


def train(
    config: Composed,
    *,
    train_records: Records | None = None,
    validation_records: Records | None = None,
    callbacks: Sequence[Hook] = (),
    resume_from: str | Path | None = None,
) -> Run:
    """Fine-tune a model.

    Parameters
    ----------
    config : Composed
        The result of `load_config`.
    train_records, validation_records : iterable of mapping, optional
        Records in memory, such as a list of dicts or a ``datasets.Dataset``. They replace the data of the
        configuration and are recorded by digest.
    callbacks : sequence of Hook
        Called before and after each optimizer step.
    resume_from : str or Path, optional
        A run directory, a checkpoint, or ``latest``.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, data, model, checkpoint, disk, non-finite loss, interrupted.
    """
    if train_records is None and validation_records is not None:
        raise UserError(
            "validation_records: given without train_records",
            fix="pass both, or set data.valid in the configuration",
            code="DATA_RECORDS_INCOMPLETE",
        )
    named = {"train": train_records, "valid": validation_records}
    records = {split: rows for split, rows in named.items() if rows is not None}
    with _quiet_session():
        from codex_ml.config.paths import check_paths
        from codex_ml.config.validate import validate_train
        from codex_ml.models.source import check_source
        from codex_ml.recipes.inputs import refuse_unsafe_values
        from codex_ml.recipes.memory_records import records_on_disk
        from codex_ml.recipes.network import lift_guard_if_asked
        from codex_ml.recipes.train.job import TrainDependencies
        from codex_ml.recipes.train.job import train as run_job
        from codex_ml.runs.checkpoints import locate_run

        if resume_from is not None:
            found = resume_from if resume_from == "latest" else locate_run(resume_from, _RUNS)
            config = _with_section(config, "run", {"resume_from": str(found)})
        with records_on_disk(records, Path(config.values["run"]["output_dir"])) as files:
            if files:
                config = _with_section(config, "data", _data_values(files))
            settings = validate_train(config)
            check_paths(settings)
            refuse_unsafe_values(settings)
            check_source(settings.model)
            lift_guard_if_asked(settings, config, emit=_emit)
            dependencies = TrainDependencies(emit=_emit, open_progress=_log_progress, callbacks=tuple(callbacks))
            outcome = run_job(settings, dependencies)
        for line in outcome.lines:
            _emit(line)
        assert outcome.directory is not None, "a run that trains has a directory"
        return _read_run(outcome.directory)


def evaluate(
    run: Run | str | Path,
    *,
    split: str = "test",
    records: Records | None = None,
    overrides: Overrides = (),
) -> Scores:
    """Score a checkpoint with the configuration of its run.

    Parameters
    ----------
    run : Run, str or Path
        A run (its best checkpoint), or a checkpoint directory.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    records : iterable of mapping, optional
        Records in memory that are scored instead of the split of the run.
    overrides : mapping or sequence of str
        Dotted keys and values, or overrides in Hydra's grammar.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, data, model, checkpoint.
    """
    with _quiet_session():
        from codex_ml.config.validate import validate_evaluate
        from codex_ml.recipes.evaluate import EvaluateDependencies
        from codex_ml.recipes.evaluate import evaluate as run_job
        from codex_ml.recipes.memory_records import records_on_disk

        composed, reference = _compose_for("evaluate", run, overrides, {"eval.split": split})
        given = {} if records is None else {split: records}
        with records_on_disk(given, Path(composed.values["run"]["output_dir"])) as files:
            if files:
                composed = _with_section(composed, "data", _data_values(files))
            config = validate_evaluate(composed)
            target = _resolve(config, composed, reference)
            outcome = run_job(config, [target], EvaluateDependencies(emit=_emit))
        result = outcome.results[target.name]
        metrics = {name: metric.value for name, metric in result.metrics.items()}
        return Scores(outcome.directory, metrics, result.predictions)


def generate(run: Run | str | Path, prompts: Sequence[str], *, overrides: Overrides = ()) -> list[Generation]:
    """Generate a text for each prompt, with the safety filters on both sides.

    Parameters
    ----------
    run : Run, str or Path
        A run (its best checkpoint), or a checkpoint directory.
    prompts : sequence of str
        The prompts.
    overrides : mapping or sequence of str
        Dotted keys and values such as ``generation.max_new_tokens``, or overrides in Hydra's grammar.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, model, checkpoint, a prompt that is too long.
    """
    with _quiet_session():
        from codex_ml.config.validate import validate_generate
        from codex_ml.recipes.answering import GenerateDependencies, open_answerer
        from codex_ml.recipes.generate import answer_prompt

        composed, reference = _compose_for("generate", run, overrides, {})
        config = validate_generate(composed)
        target = _resolve(config, composed, reference)
        dependencies = GenerateDependencies(emit=_emit)
        with open_answerer(config, target, dependencies) as answerer:
            return [answer_prompt(answerer, prompt, lambda _: None, _emit) for prompt in prompts]


@contextmanager
def _quiet_session() -> Iterator[None]:
    """Apply guard, switches and umask, and hide the progress bars of transformers."""
    with private_session():
        from transformers.utils import logging as transformers_logging

        was_enabled = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            if was_enabled:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _emit(line: str) -> None:
    if line.startswith(_WARNING):
        _LOGGER.warning(line.removeprefix(_WARNING))
    else:
        _LOGGER.info(line)


def _log_progress(total_steps: int, every_steps: int, _start_step: int) -> Hook:
    from codex_ml.training.hooks import MetricLog, progress_line

    return MetricLog(lambda step, metrics: _emit(progress_line(step, total_steps, metrics)), every_steps, total_steps)


def _split_overrides(overrides: Overrides) -> tuple[dict[str, object], list[str]]:
    return (dict(overrides), []) if isinstance(overrides, Mapping) else ({}, list(overrides))


def _data_values(files: Mapping[str, Path]) -> dict[str, Any]:
    named = {name: str(files[name]) if name in files else None for name in ("train", "valid", "test")}
    return {"path": None, "files": {}, "weights": {}, **named}


def _with_section(composed: Composed, section: str, values: Mapping[str, Any]) -> Composed:
    origins = {**composed.origins, **{f"{section}.{name}": "Python API" for name in values}}
    return replace(
        composed,
        values={**composed.values, section: {**composed.values[section], **values}},
        origins=origins,
    )


def _compose_for(
    command: Command, run: Run | str | Path, overrides: Overrides, values: Mapping[str, object]
) -> tuple[Composed, str]:
    from codex_ml.recipes.checkpoint_config import compose_for

    reference = str(run.directory if isinstance(run, Run) else run)
    given, texts = _split_overrides(overrides)
    composed, _ = compose_for(command, texts, [reference], None, None, {**values, **given}, _emit)
    return composed, reference


def _resolve(config: EvaluateConfig | GenerateConfig, composed: Composed, reference: str) -> Target:
    from codex_ml.models.source import check_source
    from codex_ml.recipes.checkpoint_config import output_dir, warn_of_targets
    from codex_ml.recipes.network import lift_guard_if_asked
    from codex_ml.runs.listing import resolve_targets

    check_source(config.model)
    lift_guard_if_asked(config, composed, emit=_emit)
    (target,) = resolve_targets([reference], output_dir(config), None)
    warn_of_targets([target], _emit)
    return target


def _read_run(directory: Path) -> Run:
    from codex_ml.monitoring.codex_logging import read_ndjson
    from codex_ml.runs.checkpoints import final_checkpoint, read_pointer
    from codex_ml.runs.layout import RunLayout

    layout = RunLayout(directory)
    best = read_pointer(layout.checkpoints, "best") or final_checkpoint(layout)
    metrics: dict[str, float] = {}
    for line in read_ndjson(layout.metrics):
        prefix = _SPLIT_PREFIXES.get(str(line.get("split")))
        if prefix is not None:
            metrics[f"{prefix}{line['name']}"] = line["value"]
    return Run(directory, best, metrics)
