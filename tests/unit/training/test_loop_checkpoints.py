"""When the loop writes checkpoints, which stay, how it ends, and that a resumed run ends bit-identical."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codex_ml.runs.checkpoints import list_checkpoints, read_pointer
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import VALIDATION_LOSS, EarlyStopping, Evaluation, HookResult
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainerDependencies, TrainingResult, run_training

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


def train(job: TrainingJob, *hooks: Any, **options: Any) -> tuple[TrainingResult, TrainerState]:
    """Run a job with a fresh state."""
    state = TrainerState()
    return run_training(job, state, hooks, **options), state


def steps_there(job: TrainingJob) -> list[int]:
    """Return the steps that have a checkpoint."""
    return [step for step, _ in list_checkpoints(job.checkpoints)]


def test_run_training_in_memory_trains_and_resumes_without_a_file(workshop: Workshop) -> None:
    """Where checkpoints go to and come from is one collaborator: the end of an unbroken run, and no file at all."""
    workshop.dropout = 0.3
    straight, broken = workshop.memory_store(), workshop.memory_store()
    train(workshop.job(on_disk=False, name="a", save_steps=4), dependencies=TrainerDependencies(open_store=straight))

    asked = iter([None, None, "SIGTERM"])
    first = workshop.job(on_disk=False, name="b", save_steps=4)
    result, _ = train(first, dependencies=TrainerDependencies(open_store=broken, stop_requested=lambda: next(asked)))
    assert (sorted(broken.kept), result.last_checkpoint) == ([3], broken.place(3))
    loaded = broken.load(result.last_checkpoint)
    second = workshop.job(workshop.model(seed=9), on_disk=False, name="c", save_steps=4)
    run_training(second, loaded.state, resume=loaded, dependencies=TrainerDependencies(open_store=broken))

    assert (straight.latest, broken.latest) == (6, 6)
    for kept, expected in ((broken.kept[6], straight.kept[6]), (broken.kept[4], straight.kept[4])):
        assert (kept.state, kept.values) == (expected.state, expected.values)
        for tensors, wanted in ((kept.weights, expected.weights), (kept.tensors, expected.tensors)):
            assert tensors.keys() == wanted.keys()
            assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    assert list(workshop.directory.iterdir()) == []


@pytest.mark.parametrize(("save_steps", "expected"), [(None, [5]), (2, [2, 4, 5]), (1, [1, 2, 3, 4, 5])])
def test_run_training_checkpoints_are_written_when_due(
    save_steps: int | None, expected: list[int], workshop: Workshop
) -> None:
    """At the interval, also in the only epoch, and at the end."""
    job = workshop.job(total_steps=5, save_steps=save_steps, keep_last=9)
    result, state = train(job)
    assert steps_there(job) == expected
    assert result.last_checkpoint == job.checkpoints / "step-00000005"
    assert load_checkpoint(result.last_checkpoint).state == state


def test_run_training_best_and_latest_are_kept_by_validation(workshop: Workshop) -> None:
    """The best checkpoint is saved when it is met and survives the retention of the newest."""
    losses = {1: 0.9, 2: 0.2, 3: 0.4, 4: 0.3, 5: 0.5, 6: 0.6}
    job = workshop.job(total_steps=6, save_steps=1, keep_last=1, keep_best=1)
    _, state = train(job, workshop.recorder(lambda step: HookResult({VALIDATION_LOSS: losses[step]})))
    assert (state.best_step, state.best_metric) == (2, 0.2)
    assert steps_there(job) == [2, 6]
    assert read_pointer(job.checkpoints, "best") == job.checkpoints / "step-00000002"
    assert read_pointer(job.checkpoints, "latest") == job.checkpoints / "step-00000006"


@pytest.mark.parametrize(("keep_best", "expected"), [(1, [2, 6]), (0, [6])])
def test_run_training_improvement_without_save_interval_is_saved_when_kept(
    keep_best: int, expected: list[int], workshop: Workshop
) -> None:
    """Without an interval the best is still caught, unless none is to be kept."""
    losses = {2: 0.2, 4: 0.3, 6: 0.6}

    def answer(step: int) -> HookResult | None:
        return HookResult({VALIDATION_LOSS: losses[step]}) if step in losses else None

    job = workshop.job(total_steps=6, keep_last=1, keep_best=keep_best)
    train(job, workshop.recorder(answer))
    assert steps_there(job) == expected


def test_run_training_early_stopping_ends_with_a_checkpoint(workshop: Workshop) -> None:
    """Two validations without improvement end the run; the reason stands in state and checkpoint."""
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.1])
    state = TrainerState()
    job = workshop.job(total_steps=10, keep_last=1)
    hooks = [Evaluation(lambda: {VALIDATION_LOSS: next(losses)}, 2, 10), EarlyStopping(state, patience=2)]
    result = run_training(job, state, hooks)
    assert state.step == 8
    assert state.stop_reason == "no improvement of validation_loss in 2 evaluations"
    assert result.stopped_by_request is None
    assert steps_there(job) == [4, 8]
    assert load_checkpoint(job.checkpoints / "step-00000008").state.stop_reason == state.stop_reason
    assert read_pointer(job.checkpoints, "best") == job.checkpoints / "step-00000004"


def test_run_training_stop_requested_finishes_the_step_and_writes_a_checkpoint(workshop: Workshop) -> None:
    """A signal ends the run at the border of a step, whole."""
    asked = iter([None, None, "SIGTERM"])
    job = workshop.job(total_steps=10)
    result, state = train(job, dependencies=TrainerDependencies(stop_requested=lambda: next(asked)))
    assert (result.stopped_by_request, state.step, state.stop_reason) == ("SIGTERM", 3, None)
    assert result.last_checkpoint == job.checkpoints / "step-00000003"


@pytest.mark.parametrize("stop_at", [1, 4, 5, 7])
def test_run_training_resumed_ends_bit_identical(stop_at: int, workshop: Workshop) -> None:
    """Stopped at a step and resumed: the same files as never stopped, with dropout, over an epoch's border."""
    workshop.dropout = 0.3
    whole = workshop.job(name="whole", total_steps=9, logging_steps=3, schedule="cosine")
    expected, _ = train(whole)

    asked = iter([None] * (stop_at - 1) + ["stop"])
    first = workshop.job(name="first", total_steps=9, logging_steps=3, schedule="cosine")
    stopped, _ = train(first, dependencies=TrainerDependencies(stop_requested=lambda: next(asked)))
    loaded = load_checkpoint(stopped.last_checkpoint)
    model = workshop.load_weights(workshop.model(seed=5), stopped.last_checkpoint)
    second = workshop.job(model=model, name="second", total_steps=9, logging_steps=3, schedule="cosine")
    hook = workshop.recorder()
    resumed = run_training(second, loaded.state, [hook], resume=loaded)
    assert hook.calls[0] == ("before", stop_at + 1)
    assert workshop.content(resumed.last_checkpoint) == workshop.content(expected.last_checkpoint)


def test_run_training_already_at_its_last_step_does_nothing(workshop: Workshop) -> None:
    """A finished run that is resumed takes no step and writes nothing."""
    job = workshop.job(total_steps=3)
    result, state = train(job)
    loaded = load_checkpoint(result.last_checkpoint)
    hook = workshop.recorder()
    again = run_training(job, loaded.state, [hook], resume=loaded)
    assert (again.last_checkpoint, hook.calls, again.state) == (None, [], state)
