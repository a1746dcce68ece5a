"""One process at work in one run directory: made or reopened, locked, tracked, and closed with how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from codex_ml.clock import utc_now
from codex_ml.config.schema.root import RunConfig
from codex_ml.monitoring.debug_log import FILE_NAME as DEBUG_LOG
from codex_ml.monitoring.debug_log import debug_log
from codex_ml.recipes.failures import second_to
from codex_ml.recipes.resume import ResumePoint
from codex_ml.runs.checkpoints import remove_partial, remove_staged, set_aside_newer, step_of, way_back
from codex_ml.runs.layout import RunLayout, RunRecord, close_record, create_run, format_stamp, write_record
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.run_manifest import remove_run_manifest, write_run_manifest
from codex_ml.safety.filters import SafetyFilters
from codex_ml.storage import Storage
from codex_ml.tracking.context import ExperimentContext, end_status
from codex_ml.tracking.opening import TrackingDependencies, open_experiment
from codex_ml.tracking.sinks import RunInfo


@dataclass(frozen=True)
class Session:
    """The open run."""

    layout: RunLayout
    record: RunRecord
    context: ExperimentContext


@dataclass(frozen=True)
class SessionDependencies:
    """What a session uses of the outside world: files, the user's screen, the time, and the trackers."""

    storage: Storage
    say: Callable[[str], None]
    clock: Callable[[], datetime] = utc_now
    tracking: TrackingDependencies = field(default_factory=TrackingDependencies)


@contextmanager
def open_session(
    config: RunConfig,
    filters: SafetyFilters,
    resume: ResumePoint,
    tracker_run_ids: Mapping[str, str],
    dependencies: SessionDependencies,
) -> Iterator[Session]:
    """Open the run that a config starts or goes on with, for the length of a ``with`` block.

    The run ends FINISHED, or KILLED or FAILED by the exception that leaves the block.
    """
    storage, clock = dependencies.storage, dependencies.clock

    def warn(text: str) -> None:
        # What is wrong with a checkpoint or a tracker is said in the words of others.
        dependencies.say(f"warning: {filters.redact(text)}")

    output_dir = config.run.output_dir
    assert output_dir is not None, "composing a config fills run.output_dir in"
    reopened = resume.layout is not None and resume.record is not None
    if resume.layout is not None and resume.record is not None:
        layout, record = resume.layout, resume.record
    else:
        layout, record = create_run(output_dir, config.run.name, clock(), storage)
    with hold_lock(layout.lock):
        # It was true of the run as it ended; a run that goes on gets another at its next end.
        remove_run_manifest(layout, storage)
        previous_status = record.status
        record = replace(record, status="RUNNING", ended=None, found_dead=None, last_sign_of_life=None)
        write_record(layout, record, storage)
        leftovers = remove_staged(layout.checkpoints, storage) + remove_partial(layout.directory, storage)
        set_aside = _set_aside(layout, resume, clock(), storage)
        info = RunInfo(
            run_id=record.run_id,
            name=record.name,
            directory_name=layout.directory.name,
            experiment=config.tracking.experiment,
            resumed=reopened,
            resumed_step=step_of(resume.checkpoint) if resume.checkpoint is not None else None,
            tracker_run_ids=tracker_run_ids,
        )
        try:
            with (
                # Closed before the run is: what it says of the end stands in it.
                debug_log(
                    layout.directory / DEBUG_LOG, config.logging.max_bytes, config.logging.backup_count, filters.redact
                ),
                open_experiment(
                    info,
                    layout.directory,
                    config.tracking.sinks,
                    redact=filters.redact_value,
                    on_warning=warn,
                    max_bytes=config.logging.max_bytes,
                    dependencies=dependencies.tracking,
                    storage=storage,
                ) as context,
            ):
                if reopened:
                    context.log_event("run_resumed", previous_status=previous_status, removed_unfinished=leftovers)
                # The reason first, then what it led to.
                for item in resume.passed_over:
                    context.log_event("checkpoint_passed_over", checkpoint=item.directory.name, reason=item.reason)
                    warn(f"passed over {item.directory.name}: {item.reason}")
                if set_aside:
                    back = way_back(layout.checkpoints / set_aside[-1])
                    context.log_event("checkpoints_set_aside", checkpoints=set_aside, way_back=back)
                    named = f"checkpoints/{', '.join(set_aside)}"
                    warn(f"later checkpoints were set aside, not deleted: {named}; to go on from one: {back}")
                yield Session(layout, record, context)
        except BaseException as error:
            with second_to(error, "run.json"):
                record = close_record(layout, record, end_status(error), clock(), storage)
                write_run_manifest(layout, record, storage)
            raise
        record = close_record(layout, record, "FINISHED", clock(), storage)
        write_run_manifest(layout, record, storage)


def _set_aside(layout: RunLayout, resume: ResumePoint, now: datetime, storage: Storage) -> list[str]:
    """Move checkpoints later than the one that the run goes on from out of the way, damaged ones included."""
    step = step_of(resume.checkpoint) if resume.checkpoint is not None else None
    return [] if step is None else set_aside_newer(layout.checkpoints, step, format_stamp(now), storage)
