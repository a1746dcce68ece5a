"""When checkpoints are written: by steps, by the clock, after a failure; and that the clock decides no number."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from codex_ml.data.batches import window_of_step
from codex_ml.errors import DataError, NonFiniteError
from codex_ml.runs.checkpoints import list_checkpoints
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.save import SaveTimer
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import VALIDATION_LOSS, HookResult
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainerDependencies, run_training

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time it was set to."""
        return self.seconds


def steps_there(job: TrainingJob) -> list[int]:
    """Return the steps that have a checkpoint."""
    return [step for step, _ in list_checkpoints(job.checkpoints)]


def train(job: TrainingJob, *hooks: Any, state: TrainerState | None = None, **dependencies: Any) -> TrainerState:
    """Train a job with collaborators, and return where it ended."""
    state = state or TrainerState()
    run_training(job, state, hooks, dependencies=TrainerDependencies(**dependencies))
    return state


def test_save_timer_without_minutes_is_never_over() -> None:
    """Null means never, whatever the clock says."""
    clock = Clock()
    timer = SaveTimer(None, clock)
    clock.seconds += 1e9
    assert not timer.is_over()


def test_save_timer_is_over_after_its_minutes_and_counts_from_the_last_checkpoint() -> None:
    """Half a minute is thirty seconds, again after each restart."""
    clock = Clock()
    timer = SaveTimer(0.5, clock)
    clock.seconds += 29.9
    assert not timer.is_over()
    clock.seconds += 0.1
    assert timer.is_over()
    timer.restart()
    assert not timer.is_over()
    clock.seconds += 30
    assert timer.is_over()


def test_save_timer_clock_set_back_waits_once_more_and_no_longer() -> None:
    """An hour back: neither a checkpoint at every step, nor none for an hour."""
    clock = Clock()
    timer = SaveTimer(1, clock)
    clock.seconds -= 3600
    assert not timer.is_over()
    clock.seconds += 59
    assert not timer.is_over()
    clock.seconds += 1
    assert timer.is_over()
    timer.restart()
    assert not timer.is_over()


def test_run_training_timed_checkpoints_change_no_number(workshop: Workshop) -> None:
    """Each hook call takes twenty seconds: a checkpoint every third step, and the same last one to the byte."""
    workshop.dropout = 0.2
    plain, timed = (
        workshop.job(name="plain", total_steps=8),
        workshop.job(name="timed", total_steps=8, save_minutes=1, keep_last=9),
    )
    train(plain)
    clock = Clock()

    def pass_time(_: int) -> None:
        clock.seconds += 20

    train(timed, workshop.recorder(before=pass_time), clock=clock)
    assert steps_there(timed) == [3, 6, 8]
    last = "step-00000008"
    assert workshop.content(timed.checkpoints / last) == workshop.content(plain.checkpoints / last)


def test_run_training_checkpoint_by_steps_restarts_the_minutes(workshop: Workshop) -> None:
    """A minute after the last checkpoint, whoever asked for that one."""
    clock = Clock()

    def pass_time(_: int) -> None:
        clock.seconds += 30

    job = workshop.job(total_steps=7, save_minutes=1, save_steps=3, keep_last=9)
    train(job, workshop.recorder(before=pass_time), clock=clock)
    assert steps_there(job) == [2, 3, 5, 6, 7]


def test_run_training_multiples_are_kept_for_good(workshop: Workshop) -> None:
    """Beside the newest and the best."""
    losses = {2: 0.5, 3: 0.1}

    def answer(step: int) -> HookResult | None:
        return HookResult({VALIDATION_LOSS: losses[step]}) if step in losses else None

    job = workshop.job(total_steps=9, save_steps=1, keep_last=1, keep_every_steps=4)
    train(job, workshop.recorder(answer))
    assert steps_there(job) == [3, 4, 8, 9]


class FullError(RuntimeError):
    """What a device says whose memory is full."""


def raising_before(step: int, error: Exception) -> Callable[[int], None]:
    """Return what raises at a step, or at a pass through the model."""

    def check(current: int) -> None:
        if current == step:
            raise error

    return check


def test_run_training_failing_step_leaves_a_checkpoint_of_the_steps_before(workshop: Workshop) -> None:
    """Nothing of a failed step is in it: resumed, the run ends in the bytes of one that never failed."""
    workshop.dropout = 0.3
    # It fails in the second micro-batch, when the first one has drawn its dropout masks already.
    shape = {"micro_batch_size": 1, "gradient_accumulation_steps": 2}
    straight = workshop.job(name="straight", total_steps=7, **shape)
    train(straight)

    failing = workshop.job(name="failing", total_steps=7, **shape)
    failing.model.on_pass = raising_before(12, FullError("out of memory"))
    events: list[dict[str, Any]] = []

    def log(kind: str, /, **fields: Any) -> None:
        events.append({"kind": kind, **fields})

    with pytest.raises(FullError, match="out of memory"):
        train(failing, log_event=log)
    assert steps_there(failing) == [5]
    assert events == [{"kind": "checkpoint_after_failure", "step": 5, "error": "FullError"}]
    saved = failing.checkpoints / "step-00000005"
    model = workshop.load_weights(workshop.model(seed=8), saved)
    resumed = workshop.job(model, name="resumed", total_steps=7, **shape)
    loaded = load_checkpoint(saved)
    run_training(resumed, loaded.state, resume=loaded)
    last = "step-00000007"
    assert workshop.content(resumed.checkpoints / last) == workshop.content(straight.checkpoints / last)


def test_run_training_hook_that_raises_before_a_step_costs_no_step(workshop: Workshop) -> None:
    """Also a window without a supervised token, and any other error that stops a step before it changes anything."""
    job = workshop.job(total_steps=5)
    with pytest.raises(DataError, match="told so"):
        train(job, workshop.recorder(before=raising_before(4, DataError("told so", code="TEST_ERROR"))))
    assert steps_there(job) == [3]


def test_run_training_failing_first_step_writes_nothing(workshop: Workshop) -> None:
    """There is nothing to keep before the first step, and a checkpoint that is there is not written again."""
    job = workshop.job(total_steps=5, save_steps=2)
    with pytest.raises(OSError, match="gone"):
        train(job, workshop.recorder(before=raising_before(1, OSError("gone"))))
    assert steps_there(job) == []
    saves: list[int] = []
    again = workshop.job(name="again", total_steps=5, save_steps=2)
    with pytest.raises(OSError, match="gone"):
        train(
            again,
            workshop.recorder(before=raising_before(3, OSError("gone"))),
            sync_logs=lambda: saves.append(len(saves)),
        )
    assert (steps_there(again), saves) == ([2], [0])


def test_run_training_non_finite_window_writes_no_further_checkpoint(workshop: Workshop) -> None:
    """Weights one step before a divergence must not push an older, better checkpoint out."""
    job = workshop.job(total_steps=5, save_steps=2, keep_last=1)
    with pytest.raises(NonFiniteError):
        train(job, workshop.recorder(before=raising_before(4, NonFiniteError("diverged", code="TEST_ERROR"))))
    assert steps_there(job) == [2]


def test_run_training_error_in_a_hook_after_the_step_writes_no_checkpoint(workshop: Workshop) -> None:
    """A step whose hooks did not all speak is not a border: its validation or log line would be missing for ever."""

    def fail(step: int) -> HookResult | None:
        if step == 3:
            raise OSError("log is full")
        return None

    job = workshop.job(total_steps=5, save_steps=2)
    with pytest.raises(OSError, match="log is full"):
        train(job, workshop.recorder(fail))
    assert steps_there(job) == [2]


def test_run_training_second_error_while_saving_does_not_hide_the_first(workshop: Workshop) -> None:
    """The checkpoint after a failure may fail too; the failure itself is what is raised, the other a note."""
    job = workshop.job(total_steps=5, on_disk=False)
    store = workshop.memory_store(free_bytes=-1)
    with pytest.raises(FullError) as caught:
        train(job, workshop.recorder(before=raising_before(3, FullError("memory"))), open_store=store)
    assert caught.value.__notes__ == ["also: no checkpoint of step 2 could be written: no room for step 2"]


def test_run_training_logs_are_forced_to_the_disk_before_each_checkpoint(workshop: Workshop) -> None:
    """A checkpoint that survives a power failure must not be newer than the log lines of its steps."""
    job = workshop.job(total_steps=4, save_steps=2)
    there: list[list[int]] = []
    train(job, sync_logs=lambda: there.append(steps_there(job)))
    assert there == [[], [2]]


def test_checkpoint_written_with_collaborators_of_a_test_loads_where_they_are_unknown(workshop: Workshop) -> None:
    """No callable reaches a checkpoint: another process, without these hooks, reads all of it; its state is JSON."""
    job = workshop.job(total_steps=2)
    train(
        job,
        workshop.recorder(lambda _: HookResult({VALIDATION_LOSS: 0.5})),
        clock=Clock(),
        sync_logs=lambda: None,
        log_event=lambda _, **__: None,
        stop_requested=lambda: None,
    )
    saved = job.checkpoints / "step-00000002"
    program = (
        "import sys, pathlib, json; from codex_ml.training.checkpoint.load import load_checkpoint; "
        "loaded = load_checkpoint(pathlib.Path(sys.argv[1])); "
        "print(json.dumps([loaded.state.step, sorted(loaded.values), sorted(loaded.manifest)]))"
    )
    answer = subprocess.run([sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=True)
    in_manifest = ["files", "kind", "manifest_digest", "manifest_version", "step"]
    assert json.loads(answer.stdout) == [2, ["fingerprint", "random"], in_manifest]
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_run_training_no_supervised_token_in_a_later_window_keeps_the_steps_before(workshop: Workshop) -> None:
    """The real case of an error that changes nothing: the window is refused, the steps before it are kept."""
    records = workshop.records()
    for index in window_of_step(0, 3, len(records), 2):
        records[index] = type(records[index])(
            records[index].record_id,
            records[index].input_ids,
            tuple(False for _ in records[index].input_ids),
            1,
            "",
            None,
        )
    job = workshop.job(records=records, total_steps=5)
    with pytest.raises(DataError, match="step 4"):
        train(job)
    assert steps_there(job) == [3]
