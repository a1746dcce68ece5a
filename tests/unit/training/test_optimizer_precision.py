"""Mixed precision: what is computed in 16 bits and what is not, and a loss scale that loses no window."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from codex_ml.data.batches import window_of_step
from codex_ml.errors import NonFiniteError
from codex_ml.runs.checkpoints import list_checkpoints
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.loop import TrainerDependencies, TrainingResult, run_training
from codex_ml.training.optimizer import GROWTH_STEPS, INITIAL_LOSS_SCALE, LossScaler, computing_in, precision_lines

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


def test_precision_lines_confirm_what_was_asked_for() -> None:
    """Nothing without mixed precision; the loss scale for float16 alone."""
    assert precision_lines("none") == []
    (line,) = precision_lines("bfloat16")
    assert line == "mixed precision bfloat16: forward passes in bfloat16, trained weights and optimizer in float32"
    (line,) = precision_lines("float16")
    assert line.endswith("; loss scale 65,536 at the start, halved when gradients overflow")


class Overflowing(torch.autograd.Function):
    """Passes values on; gives infinities back where a gradient is larger than its limit, as float16 would."""

    @staticmethod
    def forward(context: Any, value: Tensor, limit: float) -> Tensor:
        """Return the value."""
        context.limit = limit
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the gradient, or infinities."""
        return torch.where(gradient.abs() > context.limit, math.inf, gradient), None


class Narrow(nn.Module):
    """A model whose gradients overflow beyond a limit, for records that begin with certain tokens."""

    def __init__(self, inner: nn.Module, limit: float, tokens: set[int]) -> None:
        super().__init__()
        self.inner = inner
        self.limit = limit
        self.tokens = tokens
        self.passes = 0

    def forward(self, **inputs: Any) -> SimpleNamespace:
        """Return the logits of the inner model."""
        self.passes += 1
        output = self.inner(**inputs)
        if {int(token) for token in inputs["input_ids"][:, 0]} & self.tokens:
            output.logits = Overflowing.apply(output.logits, self.limit)
        return output


def train_narrow(
    workshop: Workshop, name: str, state: TrainerState, limit: float, **settings: Any
) -> tuple[TrainingResult, Narrow, list[dict[str, Any]]]:
    """Train in float16 with gradients that overflow in the third window, and return the events."""
    records = workshop.records()
    third = window_of_step(0, 2, len(records), 2)
    model = Narrow(workshop.model(), limit, {records[index].input_ids[0] for index in third})
    events: list[dict[str, Any]] = []

    def log(kind: str, /, **fields: Any) -> None:
        events.append({"kind": kind, **fields})

    job = workshop.job(model, records, name=name, mixed_precision="float16", **settings)
    return run_training(job, state, dependencies=TrainerDependencies(log_event=log)), model, events


@pytest.mark.parametrize(("kind", "expected"), [("none", torch.float32), ("bfloat16", torch.bfloat16)])
def test_computing_in_kind_decides_the_type_of_products_only(kind: Any, expected: torch.dtype) -> None:
    """Matrix products are of the 16-bit type; weights and their gradients stay float32."""
    layer = nn.Linear(4, 4)
    with computing_in(kind, "cpu"):
        product = layer(torch.ones(2, 4))
    product.float().sum().backward()
    assert (product.dtype, layer.weight.dtype, layer.weight.grad.dtype) == (expected, torch.float32, torch.float32)


def test_loss_scaler_scaled_and_unscaled_gradients_are_the_same_bits() -> None:
    """Powers of two change no bit of what stays in range."""
    layer, inputs = nn.Linear(5, 3), torch.randn(2, 5)
    layer(inputs).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    scaler = LossScaler(TrainerState())
    scaler.scaled(layer(inputs).square().sum()).backward()
    assert not torch.equal(layer.weight.grad, plain[0])
    scaler.unscale(layer.parameters())
    assert all(torch.equal(parameter.grad, kept) for parameter, kept in zip(layer.parameters(), plain, strict=True))


def test_loss_scaler_counts_halves_and_doubles_in_the_trainers_state() -> None:
    """All it knows is in the state that a checkpoint keeps."""
    state = TrainerState()
    scaler = LossScaler(state)
    assert not scaler.back_off(loss=1.0, gradient_norm=5.0)
    assert scaler.back_off(loss=1.0, gradient_norm=math.inf)
    assert scaler.back_off(loss=1.0, gradient_norm=math.nan)
    assert (state.loss_scale, state.overflows) == (INITIAL_LOSS_SCALE / 4, 2)
    for _ in range(GROWTH_STEPS - 1):
        scaler.step_made()
    assert state.loss_scale == INITIAL_LOSS_SCALE / 4
    again = LossScaler(TrainerState.from_json(state.to_json()))
    again.step_made()
    assert again.scale == INITIAL_LOSS_SCALE / 2
    again.step_made()
    assert again.scale == INITIAL_LOSS_SCALE / 2
    assert again.back_off(loss=1.0, gradient_norm=math.inf)
    for _ in range(GROWTH_STEPS - 1):
        again.step_made()
    assert again.scale == INITIAL_LOSS_SCALE / 4


def test_loss_scaler_loss_that_is_not_finite_is_not_tried_again() -> None:
    """The scale is not to blame for it."""
    assert not LossScaler(TrainerState()).back_off(loss=math.nan, gradient_norm=math.inf)


def test_run_training_overflow_is_logged_and_the_window_computed_again(workshop: Workshop) -> None:
    """No window is lost: the same records with half the scale, as often as needed; counters count each window once."""
    limit = 3000.0
    state = TrainerState()
    result, model, events = train_narrow(workshop, "a", state, limit, total_steps=4)
    assert [event["kind"] for event in events] == ["loss_scale_overflow"] * state.overflows
    assert state.overflows >= 2
    assert {event["step"] for event in events} == {3}
    assert [event["lowered_to"] for event in events] == [event["loss_scale"] / 2 for event in events]
    assert state.loss_scale == INITIAL_LOSS_SCALE / 2**state.overflows
    seen = model.inner.seen
    assert seen[2] == seen[2 + state.overflows]
    assert (model.passes, state.step, result.state) == (4 + state.overflows, 4, state)
    expected = workshop.job(name="plain", total_steps=4)
    plain = TrainerState()
    run_training(expected, plain)
    counts = ("trained_tokens", "masked_tokens", "padding_tokens")
    assert [getattr(state, name) for name in counts] == [getattr(plain, name) for name in counts]


def test_run_training_overflow_draws_the_same_dropout_masks_again(workshop: Workshop) -> None:
    """How often a window was tried changes nothing of what is learnt: bit for bit that of a scale that fits at once."""
    workshop.dropout = 0.4
    overflowed, resolve_micro_batch_size = TrainerState(), TrainerState()
    first, *_ = train_narrow(workshop, "a", overflowed, 3000.0)
    resolve_micro_batch_size.loss_scale = overflowed.loss_scale
    second, *_ = train_narrow(workshop, "b", resolve_micro_batch_size, 3000.0)
    assert overflowed.overflows > resolve_micro_batch_size.overflows == 0
    for name in ("model.safetensors", "training_state.safetensors"):
        one, other = load_file(first.last_checkpoint / name), load_file(second.last_checkpoint / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_run_training_overflow_at_every_scale_stops_and_keeps_the_last_checkpoint(workshop: Workshop) -> None:
    """A gradient that overflows without any scale is no matter of scales: the run stops before the step."""
    state = TrainerState()
    with pytest.raises(NonFiniteError, match="step 3: the gradient norm is not finite"):
        train_narrow(workshop, "a", state, 0.0, total_steps=4, save_steps=1)
    assert state.step == 2
    assert state.loss_scale == 1.0
    assert [step for step, _ in list_checkpoints(workshop.directory / "a" / "checkpoints")] == [1, 2]


def test_run_training_scale_stands_in_the_metrics_of_float16_only(workshop: Workshop) -> None:
    """The curve of the scale can be seen; other runs have none."""
    for kind, expected in (("float16", True), ("bfloat16", False), ("none", False)):
        hook = workshop.recorder()
        run_training(workshop.job(name=kind, total_steps=1, mixed_precision=kind), TrainerState(), [hook])
        assert ("loss_scale" in hook.metrics[0]) is expected


def test_run_training_mixed_precision_learns_what_float32_learns_about(workshop: Workshop) -> None:
    """Sixteen bits change the last digits, not the course; weights and moments are kept in float32."""
    losses, norms = {}, {}
    for kind in ("none", "bfloat16", "float16"):
        hook = workshop.recorder()
        result = run_training(workshop.job(name=kind, total_steps=6, mixed_precision=kind), TrainerState(), [hook])
        losses[kind] = [metrics["step_loss"] for metrics in hook.metrics]
        # Adam and clipping hide a gradient of the wrong size; its norm does not.
        norms[kind] = hook.metrics[0]["gradient_norm"]
        saved = load_file(result.last_checkpoint / "training_state.safetensors")
        assert {tensor.dtype for name, tensor in saved.items() if name.endswith("|exp_avg")} == {torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["none"], rel=0.03)
    assert losses["float16"] == pytest.approx(losses["none"], rel=0.01)
    assert [norms["bfloat16"], norms["float16"]] == pytest.approx([norms["none"]] * 2, rel=0.03)
    assert losses["bfloat16"] != losses["none"] != losses["float16"]
