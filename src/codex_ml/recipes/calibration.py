"""What a run will take of memory and time, measured on a short row and on its first steps before it is planned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.batches import make_batch
from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.modeling.loss import supervised_loss
from codex_ml.modeling.peak_memory import PeakMemory
from codex_ml.recipes.model_setup import TrainableModel
from codex_ml.training.job import TrainingJob
from codex_ml.training.optim import build_optimizer
from codex_ml.training.plan import Plan
from codex_ml.training.precision import LossScaler, computing_in
from codex_ml.training.state import TrainerState
from codex_ml.training.window import WindowGradients

# Long enough that what does not grow with the length is little, short enough for any model.
_FEWEST_TOKENS, _LONGER_TOKENS = 9, 144
# So few labels that logits are nothing beside the rest; those are counted by the plan, which knows the chunks.
_LABELS = 2
_TIMED_SECONDS = 2.0


@dataclass(frozen=True)
class Machine:
    """What is asked of the machine; tests pass others.

    Parameters
    ----------
    clock : callable
        Seconds.
    available_bytes : callable
        Memory that could still be taken.
    """

    clock: Callable[[], float] = time.perf_counter
    available_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)


def calibrate(
    config: TrainConfig,
    records: Sequence[TokenizedRecord],
    trainable: TrainableModel,
    plan: Plan,
    pad_token_id: int,
    machine: Machine,
) -> Plan:
    """Return the plan with the memory of a pass and the time of a step as this model takes them on this machine.

    Only for a run that will not follow (``--dry-run``): the weights are trained for some steps, and nothing is written.
    """
    model = trainable.model
    model.train()
    plan = _with_memory(config, trainable, plan)
    to_come = sum(plan.memory_bytes.values()) - plan.memory_bytes["weights"]
    if trainable.base.device.value == "cpu" and to_come > machine.available_bytes():
        return replace(plan, time_line="time: not measured, as a step needs more memory than there is")
    return replace(plan, time_line=_time_line(config, records, trainable, plan, pad_token_id, machine))


class _PassBytes(NamedTuple):
    """Of one pass: its peak, and what is alive when the forward pass is over and the head is at work."""

    peak: float
    kept: float


def _with_memory(config: TrainConfig, trainable: TrainableModel, plan: Plan) -> Plan:
    """Put the memory of the largest pass into a plan, from two short ones: it grows with the number of positions."""
    more = min(_LONGER_TOKENS, max(_FEWEST_TOKENS, plan.largest_pass_positions))
    fewer = more // 3
    short, longer = (_pass_bytes(config, trainable, tokens) for tokens in (fewer, more))
    steps = (plan.largest_pass_positions - fewer) / (more - fewer)
    peak, kept = (one + (other - one) * steps for one, other in zip(short, longer, strict=True))
    parts = dict(plan.memory_bytes)
    if trainable.kernels.layout.kind == "ragged":
        # The logits of a chunk stand beside all that is kept, and are gone before the backward pass makes its own.
        peak = max(peak, kept + parts["logits"])
    parts["activations"] = max(0, int(peak) - parts["gradients"] - parts["logits"])
    return replace(plan, memory_bytes=parts, memory_measured=True)


def _pass_bytes(config: TrainConfig, trainable: TrainableModel, tokens: int) -> _PassBytes:
    """Return what the tensors of one forward and backward pass over one record take."""
    device = next(trainable.model.parameters()).device
    supervised = tuple(position >= tokens - _LABELS for position in range(tokens))
    record = TokenizedRecord("calibration", (0,) * tokens, supervised, tokens - _LABELS, "", None)
    batch = make_batch([record], 0, trainable.kernels.layout.kind).to(device)
    known = [*trainable.model.parameters(), *trainable.model.buffers()]
    with PeakMemory(known) as memory:
        with computing_in(config.training.mixed_precision, device.type):
            loss = supervised_loss(trainable.model, batch)
        kept: int = memory.alive_bytes
        torch.autograd.backward(loss.loss_sum)
    del loss
    trainable.model.zero_grad(set_to_none=True)
    return _PassBytes(memory.peak_bytes, kept)


def _time_line(
    config: TrainConfig,
    records: Sequence[TokenizedRecord],
    trainable: TrainableModel,
    plan: Plan,
    pad_token_id: int,
    machine: Machine,
) -> str:
    """Make steps for two seconds, the first not counted, and say how long all of them will take."""
    job = TrainingJob(
        model=trainable.model,
        records=records,
        pad_token_id=pad_token_id,
        seed=config.run.seed,
        settings=config.training,
        total_steps=plan.total_steps,
        checkpoints=Path(),
        write_weights=lambda _: None,
        layout=trainable.kernels.layout.kind,
    )
    scaler = LossScaler(TrainerState()) if config.training.mixed_precision == "float16" else None
    window = WindowGradients(job, trainable.model, torch.autograd.backward, scaler, lambda *_, **__: None)
    optimizer = build_optimizer(trainable.model, config.training)
    seconds, tokens, steps = 0.0, 0, 0
    while seconds < _TIMED_SECONDS:
        started = machine.clock()
        outcome = window.compute(steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        took = machine.clock() - started
        steps += 1
        # The first step also fills caches and starts threads; it stands for all where it alone takes that long.
        if steps > 1 or took >= _TIMED_SECONDS:
            seconds += took
            tokens += outcome.supervised_tokens + outcome.masked_tokens
    tokens_in_all = plan.tokens_per_epoch * plan.total_steps / plan.steps_per_epoch
    counted = max(1, steps - 1)
    return (
        f"time: about {_spoken(tokens_in_all * seconds / tokens)} for {plan.total_steps} steps (from {counted} steps "
        f"in {seconds:.1f} s; without loading, validation and checkpoints)"
    )


def _spoken(seconds: float) -> str:
    """Return a length of time with its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60, 1)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"
