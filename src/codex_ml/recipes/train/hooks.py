"""What happens around the steps of a training run: validation, early stopping, log, system metrics, progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.batches import make_batch
from codex_ml.eval.runner import evaluate_model
from codex_ml.monitoring.dependencies import DependencyStatus, probe_dependency
from codex_ml.monitoring.system import GpuProbe, Metrics, ProcessProbe, available_probes, sample
from codex_ml.recipes.preparation import Prepared
from codex_ml.recipes.train.session import RunDirectoryWatch, Session
from codex_ml.recipes.train.setup import TrainableModel
from codex_ml.training.averaging import AveragedWeights
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import (
    VALIDATION_LOSS,
    EarlyStopping,
    Evaluation,
    Hook,
    MetricLog,
    Progress,
    ValidationAbandonedError,
)
from codex_ml.training.plan import Plan

# Metrics of a validation during training: those that need no generation.
_VALIDATION_METRICS = ("loss", "token_accuracy")
# What an NDJSON line carries of a step; the rest is for the screen.
_LOGGED = (
    "loss",
    "learning_rate",
    "gradient_norm",
    "supervised_tokens",
    "supervised_tokens_per_second",
    "memory_bytes",
)
# Metrics of float16 runs only.
_LOGGED_WHERE_THERE = ("loss_scale", "loss_scale_overflows")
# Takes the number of steps, the logging interval in steps, and the step to start from.
OpenProgress = Callable[[int, int, int], Hook]
LogMetrics = Callable[[int, Mapping[str, float], str], None]


def training_hooks(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    session: Session,
    state: TrainerState,
    plan: Plan,
    average: AveragedWeights | None = None,
    stop_requested: Callable[[], str | None] = lambda: None,
    open_progress: OpenProgress = Progress,
    callbacks: Sequence[Hook] = (),
) -> list[Hook]:
    """Return the hooks of a run in the order in which they are called: what measures comes before what reports.

    Where an average of the weights is kept, it is the average that is validated. A validation is given up between two
    batches when the run is asked to stop.
    """
    settings = config.training
    hooks: list[Hook] = [RunDirectoryWatch(session.layout)]
    if settings.eval_steps is not None:
        validate = _validation(config, prepared, trainable, average, stop_requested)
        hooks.append(Evaluation(validate, settings.eval_steps, plan.total_steps))
    if settings.early_stopping_patience is not None:
        hooks.append(EarlyStopping(state, settings.early_stopping_patience))
    measure = system_sampler(trainable.base.device.value, session.context.log_missing)
    write = metric_writer(session.context.log_metrics, measure)
    hooks.append(MetricLog(write, settings.logging_steps, plan.total_steps))
    hooks.append(open_progress(plan.total_steps, settings.logging_steps, state.step))
    hooks.extend(callbacks)
    return hooks


def metric_writer(log: LogMetrics, measure: Callable[[], Metrics]) -> Callable[[int, Mapping[str, float]], None]:
    """Return what writes the metrics of a step: of training, of a validation where there was one, and of the system.

    Parameters
    ----------
    log : callable
        Takes ``(step, metrics, split)``.
    measure : callable
        Returns system metrics; an empty answer writes nothing.
    """

    def write(step: int, metrics: Mapping[str, float]) -> None:
        present = [name for name in _LOGGED_WHERE_THERE if name in metrics]
        log(step, {name: metrics[name] for name in (*_LOGGED, *present)}, "train")
        if VALIDATION_LOSS in metrics:
            found = {name: value for name, value in metrics.items() if name.startswith("validation_")}
            log(step, {name.removeprefix("validation_"): value for name, value in found.items()}, "valid")
        system = measure()
        if system:
            log(step, system, "system")

    return write


def system_sampler(
    device: str,
    report_missing: Callable[[DependencyStatus], None],
    probe: Callable[[str], DependencyStatus] = probe_dependency,
) -> Callable[[], Metrics]:
    """Return what samples the machine at a log step, with GPU memory for a run on a GPU; report what is missing there.

    Parameters
    ----------
    device : str
        Where the model trains: a run on the CPU loses nothing by the absence of NVML, so it is not asked for there.
    report_missing : callable
        Takes the status of a package whose measurements will be missed.
    probe : callable
        Looks for an optional package.
    """
    makers: tuple[Callable[[], Callable[[], Metrics]], ...] = (ProcessProbe,)
    if device.startswith("cuda"):
        status = probe("pynvml")
        if status.state != "available":
            report_missing(status)
        makers = (ProcessProbe, GpuProbe)
    probes = available_probes(makers)
    return lambda: sample(probes)


def _validation(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    average: AveragedWeights | None,
    stop_requested: Callable[[], str | None],
) -> Callable[[], Mapping[str, float]]:
    records = prepared.dataset.require("valid")

    def give_up_when_asked(_stage: str = "", done: int = 0, total: int = 1) -> None:
        if done < total and stop_requested() is not None:
            raise ValidationAbandonedError

    def validate() -> Mapping[str, float]:
        give_up_when_asked()
        with average.applied() if average is not None else nullcontext():
            result = evaluate_model(
                trainable.model,
                prepared.tokenizer,
                records,
                metrics=_VALIDATION_METRICS,
                collate=partial(make_batch, layout=trainable.kernels.layout.kind),
                batch_size=config.eval.batch_size,
                on_progress=give_up_when_asked,
            )
        return {f"validation_{name}": metric.value for name, metric in result.metrics.items()}

    return validate
