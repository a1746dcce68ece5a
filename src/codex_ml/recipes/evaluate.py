"""The evaluation job: score the base and saved checkpoints on one split in one process, and lay them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import EvaluateConfig
from codex_ml.data.accounting import rejects_ndjson
from codex_ml.data.batches import make_batch
from codex_ml.data.manifest import membership_of
from codex_ml.errors import CheckpointError, DataError
from codex_ml.eval.metrics import chosen_metrics
from codex_ml.eval.results import EvaluatedModel, EvaluationResult, render_table, write_results
from codex_ml.eval.runner import evaluate_model
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.io.stopping import STOP
from codex_ml.io.untrusted import MAX_MEMBERSHIP_BYTES, read_json
from codex_ml.modeling.forward import BatchLayout, configure_batch_layout
from codex_ml.models.registry import BaseModel, load_base_model
from codex_ml.monitoring.codex_logging import NdjsonWriter
from codex_ml.monitoring.debug_log import FILE_NAME as DEBUG_LOG
from codex_ml.monitoring.debug_log import debug_log
from codex_ml.recipes.inputs import BypassRecorder, emit, refuse_unsafe_values, safety_summary, user_name
from codex_ml.recipes.preparation import Prepared, open_digests, prepare
from codex_ml.recipes.target_model import (
    check_bases,
    check_tokenizers,
    keeps_average,
    model_of,
    refuse_missing_averages,
    uses_average,
    weight_digests,
)
from codex_ml.runs.checkpoints import run_of_checkpoint
from codex_ml.runs.layout import RunLayout, close_record, create_run
from codex_ml.runs.listing import BASE, Target
from codex_ml.runs.lock import hold_lock
from codex_ml.safety.filters import SafetyAudit
from codex_ml.tracking.context import end_status


@dataclass(frozen=True)
class EvaluateDependencies:
    """What the job uses of the outside world; tests pass others."""

    storage: Storage = field(default_factory=Storage)
    emit: Callable[[str], None] = emit
    clock: Callable[[], datetime] = utc_now
    who: Callable[[], str] = user_name


@dataclass(frozen=True)
class EvaluateOutcome:
    """What the command prints: one table, and where the files lie."""

    directory: Path
    table: str
    results: dict[str, EvaluationResult]


def evaluate(
    config: EvaluateConfig, targets: Sequence[Target], dependencies: EvaluateDependencies | None = None
) -> EvaluateOutcome:
    """Score every target on the split of a config and write its results beside its run.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, data, model, checkpoint; an empty evaluation set is an error.
    """
    dependencies = dependencies or EvaluateDependencies()
    check_paths(config)
    refuse_unsafe_values(config)
    chosen_metrics(config.eval.metrics)
    bypass_recorder = BypassRecorder("evaluate", dependencies.who, dependencies.clock)
    prepared = prepare(
        config, dependencies.emit, [config.eval.split], dependencies.storage, bypass_recorder=bypass_recorder
    )
    STOP.check()
    records = prepared.dataset.require(config.eval.split)
    if config.eval.max_records is not None:
        records = records[: config.eval.max_records]
    _refuse_trained_records(config, targets, prepared)
    check_tokenizers(targets, prepared.tokenizer_digest, prepared.extra_tokenizer_digest)
    refuse_missing_averages(targets, config.eval.weights)
    digests = open_digests(config)
    base = load_base_model(config.model, prepared.tokenizer, config.run.seed, digests)
    check_bases(targets, base)
    STOP.check()
    for text in prepared.dataset.warnings:
        dependencies.emit(f"warning: {text}")
    for line in prepared.dataset.account.dropped_lines():
        dependencies.emit(f"warning: {line}")
    # Before anything is written: a layout that the base does not support is an error.
    layout = configure_batch_layout(base.model, config.model.batch_layout)
    dependencies.emit(layout.line())
    dependencies.emit(
        f"device {base.device.value}: {base.device.reason}; dtype {base.dtype.value}: {base.dtype.reason}"
    )
    results: dict[str, EvaluationResult] = {}
    with _receiving_run(config, targets, dependencies) as receiving:
        digests.save(dependencies.storage)
        for target in targets:
            STOP.check()
            run = _own_run(target) or receiving
            with (
                _open_log(config, prepared, run, dependencies.storage) as log,
                model_of(target, config.eval.weights, base) as model,
            ):
                which = " with its averaged weights" if uses_average(target, config.eval.weights) else ""
                dependencies.emit(f"evaluating {target.shown}{which} on {len(records)} records of {config.eval.split}")
                result = _score(config, prepared, model, records, target, log)
                _write(config, prepared, base, layout, target, result, run, log, dependencies.storage)
            results[target.name] = result
    return EvaluateOutcome(receiving.evaluations, _table(results), results)


@contextmanager
def _open_log(config: EvaluateConfig, prepared: Prepared, run: RunLayout, storage: Storage) -> Iterator[NdjsonWriter]:
    """Open the log of a run's evaluations for this process alone."""
    storage.make_directory(run.evaluations)
    with (
        hold_lock(run.evaluations / "eval.lock"),
        debug_log(
            run.evaluations / DEBUG_LOG, config.logging.max_bytes, config.logging.backup_count, prepared.filters.redact
        ),
        NdjsonWriter(
            run.evaluations / "metrics.ndjson",
            config.logging.max_bytes,
            redact=prepared.filters.redact_value,
            storage=storage,
        ) as log,
    ):
        for event in prepared.audit_events:
            log.write(event)
        yield log


def _own_run(target: Target) -> RunLayout | None:
    """Return the run a target lies in; None for the base and for a checkpoint that was moved out of its run."""
    return run_of_checkpoint(target.directory) if target.directory is not None else None


def _result_name(config: EvaluateConfig, target: Target) -> str:
    """Name the directory of a result by checkpoint, weights, split and share: no result takes another's place."""
    name = target.name if target.directory is None or _own_run(target) is None else target.directory.name
    if keeps_average(target) and not uses_average(target, config.eval.weights):
        name += "-last"
    if config.eval.split != "test":
        name += f"-{config.eval.split}"
    if config.eval.max_records is not None:
        name += f"-first-{config.eval.max_records}"
    return name


def _table(results: dict[str, EvaluationResult]) -> str:
    """Lay the models side by side; a single checkpoint beside the base is what the reader calls tuned."""
    tuned = [name for name in results if name != BASE]
    label = {tuned[0]: f"tuned ({tuned[0]})"} if len(tuned) == 1 else {}
    return render_table([(label.get(name, name), result.metrics) for name, result in results.items()])


def _score(
    config: EvaluateConfig,
    prepared: Prepared,
    model: nn.Module,
    records: Sequence[Any],
    target: Target,
    log: NdjsonWriter,
) -> EvaluationResult:
    audit = SafetyAudit(lambda event: log.write({**event, "checkpoint": target.name}), stage="evaluation")
    layout = configure_batch_layout(model, config.model.batch_layout)
    return evaluate_model(
        model,
        prepared.tokenizer,
        records,
        metrics=config.eval.metrics,
        collate=partial(make_batch, layout=layout.kind),
        batch_size=config.eval.batch_size,
        max_new_tokens=config.eval.max_new_tokens,
        bleu_tokenize=config.eval.bleu_tokenize,
        filter_text=prepared.filters.apply,
        on_findings=lambda record_id, name, findings: audit.record(record_id, name, findings, "redact"),
        # An evaluation that was asked to stop ends at the next batch, even if the exception was lost.
        on_progress=lambda kind, done, total: STOP.check(),  # noqa: ARG005 - signature of the hook
    )


def _write(
    config: EvaluateConfig,
    prepared: Prepared,
    base: BaseModel,
    layout: BatchLayout,
    target: Target,
    result: EvaluationResult,
    run: RunLayout,
    log: NdjsonWriter,
    storage: Storage,
) -> None:
    digests = {
        "base_model": base.digest,
        "tokenizer": prepared.tokenizer_digest,
        "data": prepared.dataset.digest(config.eval.split),
        "safety_policy": prepared.filters.policy.digest,
    }
    digests |= weight_digests(target, config.eval.weights)
    computed = {"device": base.device.value, "dtype": base.dtype.value, "batch_layout": layout.kind}
    bypasses = [] if prepared.bypass is None else [prepared.bypass.to_json()]
    safety = safety_summary(prepared.filters, prepared.findings, bypasses)
    # What was found when the records were read is no account of an evaluation, whose filters speak once more.
    del safety["findings_by_rule"]
    write_results(
        run.evaluations / _result_name(config, target),
        result,
        EvaluatedModel(target.name, config.eval.split, digests, safety, computed),
        redact=prepared.filters.redact_value,
        max_bytes=config.logging.max_bytes,
        storage=storage,
        rejects=rejects_ndjson(prepared.dataset.rejects),
    )
    for name, metric in result.metrics.items():
        log.write(
            {
                "kind": "evaluation",
                "checkpoint": target.name,
                "run_id": target.manifest.get("run_id"),
                "step": target.manifest.get("step"),
                "split": config.eval.split,
                "records": result.records_scored,
                "weights": "averaged" if uses_average(target, config.eval.weights) else "last",
                "name": name,
                "value": metric.value,
                "signature": metric.signature,
            }
        )


@contextmanager
def _receiving_run(
    config: EvaluateConfig, targets: Sequence[Target], dependencies: EvaluateDependencies
) -> Iterator[RunLayout]:
    """Give the run that receives what belongs to no run (the base): that of the first checkpoint, or a new one."""
    layout = next((run for target in targets if (run := _own_run(target)) is not None), None)
    if layout is not None:
        yield layout
        return
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    layout, record = create_run(
        config.run.output_dir, f"{config.run.name}-evaluate", dependencies.clock(), dependencies.storage
    )
    # Like a training run: whoever lists runs tells by this lock that the evaluation is still in progress.
    with hold_lock(layout.lock):
        try:
            yield layout
        except BaseException as error:
            close_record(layout, record, end_status(error), dependencies.clock(), dependencies.storage)
            raise
        close_record(layout, record, "FINISHED", dependencies.clock(), dependencies.storage)


def _refuse_trained_records(config: EvaluateConfig, targets: Sequence[Target], prepared: Prepared) -> None:
    """Stop when records to be scored were trained on by one of the checkpoints (another seed, other ratios).

    Raises
    ------
    DataError
        With how many of the records stand in the train split of which run.
    """
    if config.eval.split == "train":
        return
    scored = prepared.dataset.manifest["splits"][config.eval.split]
    for target in targets:
        run = _own_run(target)
        if run is None or not run.data_splits.is_file():
            continue
        shared = _shared_records(run, scored)
        if shared:
            raise DataError(
                f"data: {shared} of {scored['records']} records to be scored were trained on by {target.name}",
                why=f"the split {config.eval.split} of this config is not that of the run {run.directory.name}",
                fix="evaluate with the run's own config (without --config-name or data.split.*), or take other data",
            )


def _shared_records(run: RunLayout, scored: Mapping[str, Any]) -> int:
    """Return how many records of a split a run was trained on."""
    try:
        trained = read_json(run.data_splits, MAX_MEMBERSHIP_BYTES, follow_links=False)["splits"]["train"]
        return sum(
            len(set(of_train) & set(of_scored))
            for _, trained_file, of_train in membership_of(trained)
            for _, scored_file, of_scored in membership_of(scored)
            if trained_file["digest"] == scored_file["digest"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run.data_splits} is damaged",
            why=f"{type(error).__name__}: {error}; so it is not known what the checkpoint was trained on",
            fix="restore the file from a copy, or name a checkpoint of another run",
        ) from error
