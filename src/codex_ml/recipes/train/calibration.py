"""How long a run will take, from two seconds of its own first steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.batches import permutation
from codex_ml.data.storage.arrays import lengths_of
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.recipes.train.plan import available_bytes
from codex_ml.recipes.train.setup import TrainableModel
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.job import TrainingJob
from codex_ml.training.optimizer import LossScaler, build_optimizer
from codex_ml.training.plan import Plan
from codex_ml.training.window import WindowGradients

_TIMED_SECONDS = 2.0
# A first step that takes longer is not worth the wait for a second one.
_LONGEST_WARM_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """What is asked of the machine; tests pass others.

    Parameters
    ----------
    clock : callable
        Seconds.
    available_bytes : callable
        Memory that could still be taken on a device.
    """

    clock: Callable[[], float] = time.perf_counter
    available_bytes: Callable[[str], int] = available_bytes


def calibrate(
    config: TrainConfig,
    records: Sequence[TokenizedRecord],
    trainable: TrainableModel,
    plan: Plan,
    pad_token_id: int,
    machine: Machine,
) -> Plan:
    """Return the plan with the time that its steps take with this model on this machine.

    Only for a run that will not follow (``--dry-run``): the weights are trained for some steps, and nothing is written.
    """
    trainable.model.train()
    # The weights are there already.
    to_come = plan.total_bytes - plan.memory_bytes["weights"] - plan.memory_bytes["adapter"]
    if to_come > machine.available_bytes(trainable.base.device.value):
        return replace(plan, time_line="time: not measured, as a step needs more memory than there is")
    return replace(plan, time_line=_time_line(config, records, trainable, plan, pad_token_id, machine))


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
        # The first step also fills caches, starts threads and touches the memory of gradients and optimizer: of a large
        # model it takes three times as long as any other. It represents all of them only if it is very long.
        if steps > 1 or took >= _LONGEST_WARM_UP_SECONDS:
            seconds += took
            tokens += outcome.supervised_tokens + outcome.masked_tokens
    tokens_in_all = _tokens_of_all_steps(config, records, plan)
    counted = max(1, steps - 1)
    return (
        f"time: about {_spoken(tokens_in_all * seconds / tokens)} for {plan.total_steps} steps (from {counted} steps "
        f"in {seconds:.1f} s; without loading, validation and checkpoints)"
    )


def _tokens_of_all_steps(config: TrainConfig, records: Sequence[TokenizedRecord], plan: Plan) -> int:
    """Return the tokens of whole epochs, and of the records that the steps after the last of them take."""
    epochs, steps_left = divmod(plan.total_steps, plan.steps_per_epoch)
    order = permutation(config.run.seed, epochs, len(records))
    left = order[: steps_left * config.training.records_per_step]
    return epochs * plan.tokens_per_epoch + int(lengths_of(records)[left].sum())


def _spoken(seconds: float) -> str:
    """Return a length of time with its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60, 1)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"
