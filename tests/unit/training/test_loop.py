"""The one loop, on a toy model: hooks, means, counts, hard stops, and what it is given from outside."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from codex_ml.data.batches import window_of_step
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DataError, NonFiniteError, VanishedGradientError
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import list_checkpoints
from codex_ml.training.checkpoint.save import DirectoryStore
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import VALIDATION_LOSS, HookResult
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainerDependencies, TrainingResult, run_training
from codex_ml.training.optimizer import learning_rate_at

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


class BrokenGradient(torch.autograd.Function):
    """Passes values on and gives an infinite gradient back."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - interface
        """Return the value."""
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004 - interface
        """Return infinities."""
        return torch.full_like(gradient, math.inf)


class PoisonedModel(nn.Module):
    """A model that breaks when it sees a certain first token."""

    def __init__(self, inner: nn.Module, token: int, kind: str) -> None:
        super().__init__()
        self.inner = inner
        self.token = token
        self.kind = kind

    def forward(self, **inputs: Any) -> Any:
        """Return logits that are not finite, or whose gradient is not."""
        output = self.inner(**inputs)
        if bool((inputs["input_ids"][:, 0] == self.token).any()):
            broken = output.logits * math.nan if self.kind == "loss" else BrokenGradient.apply(output.logits)
            output.logits = broken
        return output


def train(job: TrainingJob, *hooks: Any, **options: Any) -> tuple[TrainingResult, TrainerState]:
    """Run a job with a fresh state."""
    state = TrainerState()
    return run_training(job, state, hooks, **options), state


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def steps_there(job: TrainingJob) -> list[int]:
    """Return the steps that have a checkpoint."""
    return [step for step, _ in list_checkpoints(job.checkpoints)]


def reference_loss(model: nn.Module, records: list[TokenizedRecord]) -> tuple[float, int]:
    """Return the loss sum and token count of records, one by one, written down independently."""
    total, count = 0.0, 0
    with torch.no_grad():
        for record in records:
            ids = torch.tensor([record.input_ids])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
            for position in range(1, len(record.input_ids)):
                if record.supervised[position]:
                    total -= float(functional.log_softmax(logits[position - 1], -1)[record.input_ids[position]])
                    count += 1
    return total, count


def test_run_training_hooks_are_called_once_a_step_in_order(workshop: Workshop) -> None:
    """Before and after each optimizer step, numbered from 1, also when a step has several micro-batches."""
    first, second = workshop.recorder(), workshop.recorder()
    train(workshop.job(total_steps=3, gradient_accumulation_steps=2), first, second)
    assert first.calls == [(when, step) for step in (1, 2, 3) for when in ("before", "after")]
    assert second.calls == first.calls
    assert all(math.isfinite(value) for metrics in first.metrics for value in metrics.values())


def test_run_training_metrics_of_a_hook_reach_later_hooks(workshop: Workshop) -> None:
    """A later hook sees what an earlier one measured."""
    second = workshop.recorder()
    train(workshop.job(total_steps=1), workshop.recorder(lambda _: HookResult({"extra": 5.0})), second)
    assert second.metrics[0]["extra"] == 5.0


def test_run_training_first_loss_is_the_true_mean_over_supervised_tokens(workshop: Workshop) -> None:
    """The loss shown at step 1 is that of the untrained model, weighted by token over unequal micro-batches."""
    job = workshop.job(total_steps=1, micro_batch_size=2, gradient_accumulation_steps=2)
    window = [job.records[index] for index in window_of_step(0, 0, len(job.records), 4)]
    total, count = reference_loss(job.model, window)
    hook = workshop.recorder()
    train(job, hook)
    assert hook.metrics[0]["loss"] == pytest.approx(total / count, rel=1e-6)
    assert hook.metrics[0]["step_loss"] == pytest.approx(total / count, rel=1e-6)


def test_run_training_interval_loss_is_weighted_by_tokens_and_starts_anew(workshop: Workshop) -> None:
    """The loss of a line is the mean over all tokens since the line before."""
    job = workshop.job(total_steps=5, logging_steps=2, micro_batch_size=3)
    hook = workshop.recorder()
    train(job, hook)
    tokens = [
        sum(sum(job.records[index].supervised[1:]) for index in window_of_step(0, step, len(job.records), 3))
        for step in range(5)
    ]
    losses = [metrics["step_loss"] for metrics in hook.metrics]
    for line in (1, 3):
        pair = slice(line - 1, line + 1)
        mean = sum(a * b for a, b in zip(losses[pair], tokens[pair], strict=True)) / sum(tokens[pair])
        assert hook.metrics[line]["loss"] == pytest.approx(mean)
    assert hook.metrics[4]["loss"] == pytest.approx(losses[4])


def test_run_training_every_record_is_seen_once_an_epoch(workshop: Workshop) -> None:
    """Every epoch covers all records, in another order, the last partial window included."""
    job = workshop.job(total_steps=8, micro_batch_size=3)
    train(job)
    seen = [row[0] for batch in job.model.seen for row in batch]
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_run_training_positions_computed_are_all_accounted_for(workshop: Workshop) -> None:
    """Positions computed = trained + masked + padding."""
    job = workshop.job(total_steps=7, micro_batch_size=3)
    _, state = train(job)
    real = sum(len(row) for batch in job.model.seen for row in batch)
    computed = sum(len(batch) * max(len(row) for row in batch) for batch in job.model.seen)
    supervised = sum(
        sum(job.records[index].supervised[1:])
        for step in range(7)
        for index in window_of_step(0, step, len(job.records), 3)
    )
    assert state.trained_tokens == supervised
    assert state.padding_tokens == computed - real
    assert state.trained_tokens + state.masked_tokens + state.padding_tokens == computed


def test_run_training_learning_rate_follows_the_schedule_in_optimizer_steps(workshop: Workshop) -> None:
    """One point of the curve a step, whatever the accumulation."""
    hook = workshop.recorder()
    train(workshop.job(total_steps=6, schedule="cosine", warmup_steps=2, gradient_accumulation_steps=3), hook)
    expected = [learning_rate_at(step, 6, 2, 0.01, "cosine") for step in range(6)]
    assert [metrics["learning_rate"] for metrics in hook.metrics] == expected


def test_run_training_learning_rate_of_a_step_is_the_one_used(workshop: Workshop) -> None:
    """The first Adam step moves a weight by about the learning rate, here that of the warm-up."""
    job = workshop.job(total_steps=1, warmup_steps=10, learning_rate=0.5, max_grad_norm=None)
    before = weights(job.model)
    train(job)
    moved = (job.model.head.bias.detach() - before["head.bias"]).abs().max()
    assert float(moved) == pytest.approx(0.05, rel=1e-3)


def test_run_training_gradient_norm_is_that_before_clipping(workshop: Workshop) -> None:
    """Clipping scales gradients, never the norm that is shown; a cap never reached changes nothing."""
    norms, finals = [], []
    for cap in (None, 1e9, 1e-9):
        hook, job = workshop.recorder(), workshop.job(total_steps=3, max_grad_norm=cap, name=f"cap-{cap}")
        train(job, hook)
        norms.append(hook.metrics[0]["gradient_norm"])
        finals.append(weights(job.model))
    assert norms[0] == norms[1] == norms[2] > 0
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])
    assert any(not torch.equal(finals[0][name], finals[2][name]) for name in finals[0])


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (3, 2)])
def test_run_training_gradient_is_that_of_the_mean_over_the_window(shape: tuple[int, int], workshop: Workshop) -> None:
    """Adam and clipping hide a wrong scale of the loss; the gradient norm does not."""
    job = workshop.job(total_steps=1, micro_batch_size=shape[0], gradient_accumulation_steps=shape[1])
    model = workshop.model()
    window = [job.records[index] for index in window_of_step(0, 0, len(job.records), shape[0] * shape[1])]
    losses = []
    for record in window:
        ids = torch.tensor([record.input_ids])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
        wanted = torch.tensor(record.supervised[1:])
        losses.append(functional.cross_entropy(logits[wanted], ids[0, 1:][wanted], reduction="none"))
    torch.cat(losses).mean().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    hook = workshop.recorder()
    train(job, hook)
    assert hook.metrics[0]["gradient_norm"] == pytest.approx(float(expected), rel=1e-5)


def test_run_training_gradient_exactly_zero_stops_before_the_optimizer_step(workshop: Workshop) -> None:
    """A run whose weights left the range of the model would go on without learning."""
    job = workshop.job(total_steps=3)
    with torch.no_grad():
        # Saturated: the softmax is a one at one wrong token, in float32 exactly.
        job.model.embedding.weight.zero_()
        job.model.head.weight.zero_()
        job.model.head.bias.fill_(-1e4)
        job.model.head.bias[31] = 1e4
    job.model.requires_grad_(False)
    job.model.embedding.weight.requires_grad_(True)
    before = weights(job.model)
    with pytest.raises(VanishedGradientError, match="step 1: the gradient is exactly zero"):
        train(job)
    assert all(torch.equal(before[name], tensor) for name, tensor in job.model.state_dict().items())


def test_run_training_throughput_and_time_left_come_from_the_clock(workshop: Workshop) -> None:
    """The clock is a collaborator: each reading is one second later."""
    ticks = iter(range(1000))
    hook, job = workshop.recorder(), workshop.job(total_steps=4)
    train(job, hook, dependencies=TrainerDependencies(clock=lambda: float(next(ticks)), memory_bytes=lambda: 77))
    first = window_of_step(0, 0, len(job.records), 2)
    tokens = sum(sum(job.records[index].supervised[1:]) for index in first)
    assert hook.metrics[0]["supervised_tokens_per_second"] == tokens
    assert hook.metrics[0]["memory_bytes"] == 77
    assert hook.metrics[0]["seconds_left"] == 2 * 3
    assert hook.metrics[-1]["seconds_left"] == 0


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_run_training_non_finite_stops_before_the_optimizer_step(kind: str, workshop: Workshop) -> None:
    """The weights are those of the step before, the message names the records, no checkpoint is written."""
    records = workshop.records()
    poisoned = window_of_step(0, 2, len(records), 2)
    model = PoisonedModel(workshop.model(), records[poisoned[1]].input_ids[0], kind)
    job = workshop.job(model, records, total_steps=6, save_steps=1, micro_batch_size=2)
    at_step: list[dict[str, Tensor]] = []
    hook = workshop.recorder(before=lambda _: at_step.append(weights(model)))
    with pytest.raises(NonFiniteError, match=f"step 3: the {'loss' if kind == 'loss' else 'gradient norm'}") as caught:
        train(job, hook)
    assert ("after", 3) not in hook.calls
    assert all(torch.equal(at_step[-1][name], tensor) for name, tensor in job.model.state_dict().items())
    for index in poisoned:
        assert job.records[index].record_id in caught.value.why
    assert steps_there(job) == [1, 2]
    assert all(parameter.grad is None for parameter in job.model.parameters())


def test_run_training_non_finite_message_names_at_most_eight_records(workshop: Workshop) -> None:
    """A large window does not fill the screen."""
    job = workshop.job(total_steps=1, micro_batch_size=10, learning_rate=1.0)
    with torch.no_grad():
        job.model.head.bias.fill_(math.nan)
    with pytest.raises(NonFiniteError) as caught:
        train(job)
    assert "and 2 more" in caught.value.why


def test_run_training_non_finite_validation_stops(workshop: Workshop) -> None:
    """A validation loss that is no number is not ranked."""
    job = workshop.job(total_steps=2)
    with pytest.raises(NonFiniteError, match="step 1: the validation loss is not finite"):
        train(job, workshop.recorder(lambda _: HookResult({VALIDATION_LOSS: math.nan})))
    assert steps_there(job) == []


def test_run_training_window_without_supervised_token_stops_and_names_it(workshop: Workshop) -> None:
    """Position 0 is never predicted, so a mark there alone does not count."""
    records = workshop.records(4)
    first = window_of_step(0, 0, 4, 2)
    for index in first:
        mask = (True, *(False for _ in records[index].supervised[1:]))
        records[index] = replace(records[index], supervised=mask)
    job = workshop.job(records=records, total_steps=2)
    before = weights(job.model)
    with pytest.raises(DataError, match="step 1: the accumulation window holds no supervised token") as caught:
        train(job)
    assert all(records[index].record_id in caught.value.why for index in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in job.model.state_dict().items())


def test_run_training_micro_batch_without_supervised_token_is_no_fault(workshop: Workshop) -> None:
    """The window counts, not the micro-batch."""
    records = workshop.records(4)
    index = window_of_step(0, 0, 4, 2)[0]
    records[index] = replace(records[index], supervised=tuple(False for _ in records[index].supervised))
    hook = workshop.recorder()
    train(workshop.job(records=records, total_steps=1, micro_batch_size=1, gradient_accumulation_steps=2), hook)
    assert math.isfinite(hook.metrics[0]["gradient_norm"])


def test_run_training_default_dependencies_given_explicitly_change_nothing(workshop: Workshop) -> None:
    """The defaults are the real collaborators: byte for byte the same checkpoint."""
    implicit, explicit = workshop.job(name="a"), workshop.job(name="b")
    first, _ = train(implicit)
    second, _ = train(
        explicit,
        dependencies=TrainerDependencies(
            open_store=DirectoryStore,
            storage=Storage(),
            clock=time.monotonic,
            memory_bytes=lambda: int(psutil.Process().memory_info().rss),
            stop_requested=lambda: None,
            sync_logs=lambda: None,
            log_event=lambda _, **__: None,
        ),
    )
    assert workshop.content(first.last_checkpoint) == workshop.content(second.last_checkpoint)


def test_run_training_environment_of_accelerate_changes_nothing(workshop: Workshop) -> None:
    """Variables that a launcher may have left must not decide accumulation or precision."""
    plain, _ = train(workshop.job(name="a"))
    strange = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16"}
    kept = {key: os.environ.get(key) for key in strange}
    os.environ.update(strange)
    try:
        other, _ = train(workshop.job(name="b"))
    finally:
        for key, value in kept.items():
            del os.environ[key]
            if value is not None:
                os.environ[key] = value
    assert workshop.content(plain.last_checkpoint) == workshop.content(other.last_checkpoint)


def test_run_training_hook_that_leaves_evaluation_mode_on_is_undone(workshop: Workshop) -> None:
    """Dropout stays on after a validation that forgot to switch it back."""
    job = workshop.job(total_steps=2)
    job.model.eval()
    modes: list[bool] = []

    def forget(_: int) -> None:
        job.model.eval()

    train(job, workshop.recorder(answer=forget, before=lambda _: modes.append(job.model.training)))
    assert modes == [True, True]
