"""Which records repeat another, and which stand in two files: counted over digests of 16 bytes a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.splitting.split_groups import PROMPT, group_key, record_key

DIGEST_BYTES = 16
Digests = NDArray[np.uint64]  # [records, 2]


def record_digest(raw: bytes) -> bytes:
    """Return 16 bytes that stand for the bytes of a record; the first half of what decides its split."""
    return record_key(raw)[:DIGEST_BYTES]


def prompt_digest(value: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> bytes:
    """Return 16 bytes that stand for the prompt of a record, in any shape; see `group_key`.

    Raises
    ------
    ValueError
        If the record has no prompt; the message holds no content.
    """
    return group_key(value, PROMPT, columns)[:DIGEST_BYTES]


def as_digests(joined: bytes | bytearray) -> Digests:
    """Return digests that were written one behind the other as an array, [records, 2]; it is a view of them."""
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


def first_positions(digests: Digests) -> NDArray[np.int64]:
    """Return for each record the position (0-based) of the first one with its digest, [records].

    A record is a repetition where this is not its own position; the others are as many as digests are distinct.
    """
    order, group = _grouped(digests)
    firsts = np.empty(len(digests), dtype=np.int64)
    # The sort is stable, so the first of a group is the first of the file.
    firsts[order] = order[np.searchsorted(group, group, side="left")]
    return firsts


def positions_in(digests: Digests, others: Digests) -> NDArray[np.int64]:
    """Return for each record the position of the first one among others with its digest; -1 where none has, [records].

    ``numpy.count_nonzero(positions_in(test, train) >= 0)`` records of test stand in train.
    """
    firsts = first_positions(np.concatenate([others, digests]))[len(others) :]
    return np.where(firsts < len(others), firsts, -1)


def _grouped(digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions sorted by digest, and the number of the group that each belongs to; both [records]."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order, np.cumsum(is_first)
