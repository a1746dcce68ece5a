"""The plan of a run before it starts: steps, tokens, memory and disk, and the check that the disk is large enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.config.schema.training import DEFAULT_EPOCHS, TrainingSection
from codex_ml.data.batches import BatchLayout, cut_window, micro_batches_by_tokens, steps_per_epoch, window_of_step
from codex_ml.data.storage.arrays import lengths_of, supervised_counts_of
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DiskSpaceError

_ADAM_MOMENTS = 2
_FLOAT32_BYTES = 4
_HALF_BYTES = 2
# Some tenths of a second; a longer run is planned for the worst order.
_STEPS_LOOKED_THROUGH = 20_000
# Configs, state and manifest of one checkpoint, and its share of the logs: small, but not nothing.
_OVERHEAD_BYTES = 2**19


@dataclass(frozen=True)
class ModelSize:
    """Parameters and shape of a model, as far as memory depends on them; the weights are those without the adapter.

    `logit_rows` are the positions whose logits exist at a time, None where a pass makes all of them.
    """

    parameters: int
    trainable: int
    weight_bytes: int
    adapter_bytes: int
    layers: int
    hidden_size: int
    vocabulary_size: int
    tokenizer_bytes: int
    layout: BatchLayout = "padded"
    logit_rows: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will do and need; memory is an estimate and says so when printed."""

    records: int
    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    supervised_tokens_per_epoch: int
    memory_bytes: dict[str, int]
    checkpoint_bytes: int
    disk_bytes: int
    gradient_checkpointing: bool = False
    # What gradient checkpointing saves of the activations, or would save.
    checkpointing_saves_bytes: int = 0
    # Positions and records of the largest pass that the order of data can bring.
    largest_pass_positions: int = 0
    largest_pass: tuple[int, ...] = ()
    # Why the memory of a pass is an estimate by a formula; None where it was counted on this model.
    estimated_because: str | None = None
    # What to do where it does not fit, or how it was made to.
    memory_advice: str | None = None
    # How long the run will take, where that was measured.
    time_line: str | None = None

    def lines(self) -> list[str]:
        """Return the plan as lines for people."""
        memory = ", ".join(f"{part} {format_bytes(count)}" for part, count in self.memory_bytes.items() if count)
        lines = [
            f"steps: {self.total_steps} ({self.total_steps / self.steps_per_epoch:.2f} epochs of "
            f"{self.steps_per_epoch} steps over {self.records} records)",
            f"tokens an epoch: {self.tokens_per_epoch:,}, of them supervised {self.supervised_tokens_per_epoch:,}",
            f"{self._memory_of()}: {format_bytes(self.total_bytes)} = {memory}",
        ]
        if self.memory_advice is not None:
            lines.append(self.memory_advice)
        if self.gradient_checkpointing:
            lines.append(
                f"gradient checkpointing: saves {format_bytes(self.checkpointing_saves_bytes)} of activations "
                "(estimate), for a second forward pass in each step; the results are the same"
            )
        lines.append(
            f"disk: {format_bytes(self.disk_bytes)} at most ({format_bytes(self.checkpoint_bytes)} a checkpoint)"
        )
        return lines if self.time_line is None else [*lines, self.time_line]

    @property
    def total_bytes(self) -> int:
        """Memory of all parts together."""
        return sum(self.memory_bytes.values())

    def _memory_of(self) -> str:
        how = "counted" if self.estimated_because is None else f"estimate, {self.estimated_because}"
        return f"memory of tensors ({how})"


def count_steps(settings: TrainingSection, records: int) -> tuple[int, int]:
    """Return (steps an epoch, steps in all); the last window of an epoch may be smaller and still is a step."""
    epoch = steps_per_epoch(records, settings.records_per_step)
    if settings.max_steps is not None:
        return epoch, settings.max_steps
    return epoch, epoch * (settings.epochs or DEFAULT_EPOCHS)


def make_plan(settings: TrainingSection, records: Sequence[TokenizedRecord], size: ModelSize, seed: int = 0) -> Plan:
    """Work out steps, tokens, memory and disk of a run.

    Memory counts weights, gradients, AdamW's two moments and an average exactly, and estimates activations
    (`activation_bytes`) and logits (value and gradient) for the longest micro-batch.
    """
    epoch_steps, total_steps = count_steps(settings, len(records))
    lengths = lengths_of(records)
    largest = largest_pass(settings, lengths, size.layout, seed, total_steps)
    longest_positions = _positions(lengths[largest], size.layout)
    trainable_bytes = size.trainable * _FLOAT32_BYTES
    averaged_bytes = trainable_bytes if settings.ema_decay is not None else 0
    value_bytes = _FLOAT32_BYTES if settings.mixed_precision == "none" else _HALF_BYTES
    activations = activation_bytes(size, longest_positions, value_bytes)
    checkpointed = activation_bytes(size, longest_positions, value_bytes, checkpointed=True)
    memory = {
        "weights": size.weight_bytes,
        "adapter": size.adapter_bytes,
        "gradients": trainable_bytes,
        "optimizer": _ADAM_MOMENTS * trainable_bytes,
        "activations": checkpointed if settings.gradient_checkpointing else activations,
        "logits": _logit_bytes(size, longest_positions),
    }
    if averaged_bytes:
        memory["average"] = averaged_bytes
    # The average is written twice: exactly, for a resume, and as weights that can be loaded.
    checkpoint_bytes = (
        (1 + _ADAM_MOMENTS) * trainable_bytes + 2 * averaged_bytes + size.tokenizer_bytes + _OVERHEAD_BYTES
    )
    # One more than retention keeps: the new one is whole before an old one goes.
    # The best one is kept even with keep_best=0, because `best` names it.
    best = max(1, settings.keep_best) if settings.eval_steps is not None else settings.keep_best
    kept = settings.keep_last + best + 1
    if settings.keep_every_steps is not None:
        kept += total_steps // settings.keep_every_steps
    return Plan(
        records=len(records),
        steps_per_epoch=epoch_steps,
        total_steps=total_steps,
        tokens_per_epoch=int(lengths.sum()),
        supervised_tokens_per_epoch=int(supervised_counts_of(records).sum()),
        memory_bytes=memory,
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=kept * checkpoint_bytes,
        gradient_checkpointing=settings.gradient_checkpointing,
        checkpointing_saves_bytes=activations - checkpointed,
        largest_pass_positions=longest_positions,
        largest_pass=tuple(largest),
        estimated_because="by a formula, not counted",
    )


def largest_pass(
    settings: TrainingSection, lengths: NDArray[Any], layout: BatchLayout, seed: int, total_steps: int
) -> list[int]:
    """Return the records of the pass with most positions: of the run's own order, as far as that is looked through.

    Parameters
    ----------
    settings : TrainingSection
        How a step is cut into passes.
    lengths : array
        Tokens of each record.
    layout : str
        ``ragged`` or ``padded``.
    seed, total_steps : int
        Decide which records meet.
    """
    size, budget, window = settings.records_per_pass, settings.tokens_per_micro_batch, settings.records_per_step
    if total_steps > _STEPS_LOOKED_THROUGH:
        # Whatever the order brings: the longest records together.
        longest = [int(index) for index in np.argsort(-lengths, kind="stable")[:window]]
        if budget is None:
            return longest[:size]
        own = [int(lengths[index]) for index in longest]
        return micro_batches_by_tokens(longest, own, budget, padded=layout == "padded")[0]
    largest, most = [0], 0
    for step in range(total_steps):
        indices = window_of_step(seed, step, len(lengths), window)
        own = [int(lengths[index]) for index in indices]
        for part in cut_window(indices, own, size, budget, layout):
            positions = _positions(lengths[part], layout)
            if positions > most:
                largest, most = part, positions
    return largest


def _positions(lengths: NDArray[Any], layout: BatchLayout) -> int:
    """Return what one pass over records of these lengths computes."""
    return int(lengths.sum()) if layout == "ragged" else len(lengths) * int(lengths.max())


def _logit_bytes(size: ModelSize, positions: int) -> int:
    """Return what logits take: value and gradient of all, or of one chunk, where the gradient takes their place."""
    if size.logit_rows is None:
        return 2 * size.vocabulary_size * positions * _FLOAT32_BYTES
    return size.vocabulary_size * min(size.logit_rows, positions) * _FLOAT32_BYTES


def activation_bytes(size: ModelSize, positions: int, value_bytes: int, checkpointed: bool = False) -> int:
    """Return an estimate of what the forward pass keeps for the backward pass.

    About 17 hidden-sized values a token and layer, without attention scores (34 bytes at 16 bits; Korthikanti et al.
    2022, arXiv:2205.05198, section 4.1). With gradient checkpointing the input of each layer, and all of the one layer
    that is being computed again.
    """
    layer_input = size.hidden_size * positions * value_bytes
    whole = 17 * layer_input * size.layers
    return min(whole, (17 + size.layers) * layer_input) if checkpointed else whole


def check_disk(plan: Plan, directory: Path, free_bytes: Callable[[Path], int], already_there: int = 0) -> None:
    """Stop before the first step when the checkpoints to come do not fit.

    Parameters
    ----------
    plan : Plan
        Of the whole run.
    directory : Path
        On the disk that is asked.
    free_bytes : callable
        Gives what is free there.
    already_there : int
        Checkpoints of the run that lie there already, each of which retention will keep or delete.

    Raises
    ------
    DiskSpaceError
        With the bytes needed and the bytes there.
    """
    # The next checkpoint is whole before retention deletes one, however many there are.
    needed = max(plan.disk_bytes - already_there * plan.checkpoint_bytes, plan.checkpoint_bytes)
    free = free_bytes(directory)
    if free < needed:
        there = f" in addition to the {already_there} that exist" if already_there else ""
        raise DiskSpaceError(
            f"run.output_dir: {format_bytes(needed)} needed for checkpoints{there}, {format_bytes(free)} free",
            why="a run that fills the disk loses the checkpoint it is writing",
            fix="free space, choose another run.output_dir, lower training.keep_last and training.keep_best, or "
            "raise training.keep_every_steps",
            code="DISK_FULL",
        )


def format_bytes(count: int) -> str:
    """Return a number of bytes in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
