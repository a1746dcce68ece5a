"""The order of data as a pure function of seed and step, and records made into padded tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

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
    """Records of one micro-batch, padded on the right; all tensors are int64 of shape [batch, sequence]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor  # 1 for a token, 0 for padding
    labels: torch.Tensor  # the token id where supervised, else -100; not shifted

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


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
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(attention_mask), torch.from_numpy(labels))


@lru_cache(maxsize=4)  # the windows of one epoch share its order; the result is still a function of the arguments alone
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    digest = hashlib.blake2b(f"codex-ml order {seed} {epoch}".encode(), digest_size=16).digest()
    keys = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)
    # Stable, so that even equal keys have one order.
    return np.argsort(np.asarray(keys), kind="stable").astype(np.int64)
