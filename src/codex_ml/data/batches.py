"""The order of data as a pure function of seed and step, and records made into padded tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

IGNORED_LABEL = -100


class TrainableRecord(Protocol):
    """What a batch needs of a record."""

    @property
    def input_ids(self) -> Sequence[int]:
        """Token ids."""
        ...

    @property
    def supervised(self) -> Sequence[bool]:
        """For each token, whether the model is to learn it."""
        ...


@dataclass(frozen=True)
class Batch:
    """Records of one micro-batch, padded on the right; tensors are int64, of shape [batch, sequence] unless said."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor  # 1 for a token, 0 for padding
    labels: torch.Tensor  # the token id where supervised, else -100; not shifted
    predicting: torch.Tensor  # [supervised]: positions, counted row by row, whose next token is supervised
    tokens: int  # of the records, without padding
    position_ids: None = None
    record_lengths: None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            predicting=self.predicting.to(device),
        )

    @property
    def padding(self) -> int:
        """Positions that hold no token."""
        return self.input_ids.numel() - self.tokens


@dataclass(frozen=True)
class RaggedBatch:
    """Records of one micro-batch one after another in one row; tensors are int64, of shape [1, tokens] unless said."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor  # from 0 with each record
    labels: torch.Tensor  # the token id where supervised, else -100, also at each record's first token; not shifted
    predicting: torch.Tensor  # [supervised]: positions whose next token is supervised
    record_lengths: tuple[int, ...]
    attention_mask: None = None

    def to(self, device: torch.device | str) -> RaggedBatch:
        """Return the batch on a device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            labels=self.labels.to(device),
            predicting=self.predicting.to(device),
        )

    @property
    def tokens(self) -> int:
        """Tokens of the records: every position."""
        return self.input_ids.numel()

    @property
    def padding(self) -> int:
        """Positions that hold no token: none."""
        return 0


AnyBatch = Batch | RaggedBatch
BatchLayout = Literal["ragged", "padded"]


def steps_per_epoch(count: int, window_size: int) -> int:
    """Return the optimizer steps in which every one of ``count`` records is seen once; the last may be smaller."""
    if count < 1 or window_size < 1:
        raise ValueError(f"count and window_size must be at least 1, got {count} and {window_size}")
    return -(-count // window_size)


def permutation(seed: int, epoch: int, count: int) -> list[int]:
    """Return the order of ``count`` records in an epoch (0-based): a pure function of its arguments.

    The records are sorted by random 64-bit keys from a counter-based generator (Philox4x64-10; Salmon et al. 2011,
    "Parallel random numbers: as easy as 1, 2, 3"). NumPy promises that raw bits of a bit generator stay the same from
    version to version, which it does not promise for `Generator.permutation`.
    """
    return [int(index) for index in _permutation(seed, epoch, count)]


def window_of_step(seed: int, step: int, count: int, window_size: int) -> list[int]:
    """Return the record indices of optimizer step ``step`` (0-based).

    Each epoch takes every record once, in the order of `permutation`; its last window holds what is left.

    Parameters
    ----------
    seed : int
        Seed of the run.
    step : int
        Optimizer step, counted from 0 over all epochs.
    count : int
        Number of records.
    window_size : int
        Records of a full accumulation window: micro-batch size x accumulation steps x processes.
    """
    epoch, position = divmod(step, steps_per_epoch(count, window_size))
    start = position * window_size
    return [int(index) for index in _permutation(seed, epoch, count)[start : start + window_size]]


def micro_batches(indices: Sequence[int], micro_batch_size: int) -> list[list[int]]:
    """Cut a window into micro-batches; the last may be smaller."""
    if micro_batch_size < 1:
        raise ValueError(f"micro_batch_size must be at least 1, got {micro_batch_size}")
    return [list(indices[start : start + micro_batch_size]) for start in range(0, len(indices), micro_batch_size)]


def micro_batches_by_tokens(
    indices: Sequence[int], lengths: Sequence[int], micro_batch_tokens: int, *, padded: bool
) -> list[list[int]]:
    """Cut a window into micro-batches with a maximum number of positions; a longer record is a micro-batch of its own.

    Parameters
    ----------
    indices : sequence of int
        Records of the window, in order.
    lengths : sequence of int
        Tokens of each of them.
    micro_batch_tokens : int
        Positions that a micro-batch may compute.
    padded : bool
        Whether every record counts as many as the longest beside it.
    """
    if micro_batch_tokens < 1:
        raise ValueError(f"micro_batch_tokens must be at least 1, got {micro_batch_tokens}")
    parts: list[list[int]] = []
    positions = longest = 0
    for index, length in zip(indices, lengths, strict=True):
        longest_with = max(longest, length)
        positions_with = (len(parts[-1]) + 1) * longest_with if padded and parts else positions + length
        if not parts or positions_with > micro_batch_tokens:
            parts.append([])
            positions_with, longest_with = length, length
        parts[-1].append(index)
        positions, longest = positions_with, longest_with
    return parts


def cut_window(
    indices: Sequence[int],
    lengths: Sequence[int],
    micro_batch_size: int,
    micro_batch_tokens: int | None,
    layout: BatchLayout,
) -> list[list[int]]:
    """Cut a window into micro-batches, by tokens where a budget is given, else by records; the step is the same.

    In the padded layout, records of similar length are grouped: inside the window only, so that what a step learns from
    stays.
    """
    if layout == "padded":
        order = sorted(range(len(indices)), key=lengths.__getitem__)
        indices, lengths = [indices[place] for place in order], [lengths[place] for place in order]
    if micro_batch_tokens is not None:
        return micro_batches_by_tokens(indices, lengths, micro_batch_tokens, padded=layout == "padded")
    return micro_batches(indices, micro_batch_size)


def make_batch(records: Sequence[TrainableRecord], pad_token_id: int, layout: BatchLayout) -> AnyBatch:
    """Make the batch of a micro-batch: records in one row, or padded to the longest."""
    return concatenate(records) if layout == "ragged" else collate(records, pad_token_id)


def collate(records: Sequence[TrainableRecord], pad_token_id: int) -> Batch:
    """Pad records on the right to the longest of them.

    What is masked is decided by position and never by the pad id, which may be the end-of-sequence id.

    Returns
    -------
    Batch
        Tensors of shape [batch, sequence].
    """
    import torch

    longest = max(len(record.input_ids) for record in records)
    shape = (len(records), longest)
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
    for row, record in enumerate(records):
        ids = np.asarray(record.input_ids, dtype=np.int64)
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        labels[row, : len(ids)] = np.where(np.asarray(record.supervised, dtype=bool), ids, IGNORED_LABEL)
    tokens = int(attention_mask.sum())
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask),
        labels=torch.from_numpy(labels),
        predicting=torch.from_numpy(predicting_positions(labels)),
        tokens=tokens,
    )


def concatenate(records: Sequence[TrainableRecord]) -> RaggedBatch:
    """Concatenate records into one row; positions restart at each record, and no token is predicted across a border.

    Returns
    -------
    RaggedBatch
        Tensors of shape [1, tokens].
    """
    import torch

    lengths = tuple(len(record.input_ids) for record in records)
    input_ids = np.concatenate([np.asarray(record.input_ids, dtype=np.int64) for record in records])
    supervised = np.concatenate([np.asarray(record.supervised, dtype=bool) for record in records])
    starts = np.cumsum((0, *lengths[:-1]))
    supervised[starts] = False
    positions = np.arange(len(input_ids)) - np.repeat(starts, lengths)
    labels = np.where(supervised, input_ids, IGNORED_LABEL)
    return RaggedBatch(
        input_ids=torch.from_numpy(input_ids[None]),
        position_ids=torch.from_numpy(positions[None]),
        labels=torch.from_numpy(labels[None]),
        predicting=torch.from_numpy(predicting_positions(labels[None])),
        record_lengths=lengths,
    )


def predicting_positions(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of ``labels`` [batch, sequence], counted row by row, whose next one has a label.

    Found here and not by the loss: on a GPU, to ask how many there are means to wait for it.
    """
    rows, columns = np.nonzero(labels[:, 1:] != IGNORED_LABEL)
    return np.asarray(rows * labels.shape[1] + columns, dtype=np.int64)


@lru_cache(maxsize=4)  # the windows of one epoch share its order; the result is still a function of the arguments alone
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    digest = hashlib.blake2b(f"codex-ml order {seed} {epoch}".encode(), digest_size=16).digest()
    keys = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)
    # Stable, so that even equal keys have one order.
    return np.argsort(np.asarray(keys), kind="stable").astype(np.int64)
