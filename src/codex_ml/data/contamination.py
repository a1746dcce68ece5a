"""Records that occur in more than one split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from codex_ml.config.schema.data import DataSection
from codex_ml.data.problems import LineFault
from codex_ml.data.readers.registry import open_records
from codex_ml.data.splits.groups import PROMPT, group_key, record_key
from codex_ml.errors import DataError

OVERLAP, CONTENT_OVERLAP = "overlap_with_train", "content_overlap_with_train"
SHARED_PROMPTS = "prompts_shared_with_train"


class StoredBytes(Protocol):
    """Records of a split that can be looked for among others."""

    def found_in(self, digests: Digests) -> int:
        """Count the records whose bytes have one of these digests."""
        ...


def count_overlap_with_file(manifest: Mapping[str, Any], records: Mapping[str, StoredBytes], data: DataSection) -> None:
    """Add to a manifest how many records of each split also appear in the training file, if train was not built.

    Parameters
    ----------
    manifest : mapping
        Of `build_manifest`; each of its splits gets ``overlap_with_train``.
    records : mapping
        The records of each split.
    data : DataSection
        Names the file of train, or does not.
    """
    train = data.train
    if "train" in records or data.is_divided or train is None or not train.is_file():
        return
    digests = as_digests(b"".join(_digests_of(train, data.max_line_bytes)))
    for name, split in manifest["splits"].items():
        split[OVERLAP] = records[name].found_in(digests)


def leak_warnings(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the warnings about records and prompts that appear in two splits."""
    for name, split in manifest["splits"].items():
        overlap, prompts, count = _overlap_of(split), split.get(SHARED_PROMPTS, 0), split["records"]
        if overlap:
            yield (
                f"data.{name}: {overlap} of {count} records also appear in data.train, {_how(split)}; "
                "scores on them measure memory"
            )
        if prompts > overlap:
            yield (
                f"data.{name}: the prompts of {prompts} of {count} records also appear in data.train; "
                f"{_way_to_divide(manifest)} keeps records of one prompt together"
            )


def refuse_overlap(manifest: Mapping[str, Any], max_share: float) -> None:
    """Stop where so much of a split was trained on that a score on it says nothing.

    Raises
    ------
    DataError
        If the share of records of a split that also appear in train, by bytes or by tokens, is above ``max_share``.
    """
    for name, split in manifest["splits"].items():
        overlap, count = _overlap_of(split), split["records"]
        if count and overlap / count > max_share:
            share = f"{overlap} of {count} records ({overlap / count:.1%})"
            raise DataError(
                f"data.{name}: {share} also appear in data.train, {_how(split)}",
                why=f"data.max_overlap_share allows {max_share:.1%}; a score on them measures memory, not skill",
                fix=f"divide with {_way_to_divide(manifest)}, or take other records; with data.max_overlap_share they "
                "are allowed knowingly",
                code="DATA_SPLIT_OVERLAP",
            )


def _overlap_of(split: Mapping[str, Any]) -> int:
    found: int = max(split.get(OVERLAP, 0), split.get(CONTENT_OVERLAP, 0))
    return found


def _how(split: Mapping[str, Any]) -> str:
    """Say in what records are equal: in their bytes, or, where those differ, in what the model sees of them."""
    if split.get(CONTENT_OVERLAP, 0) <= split.get(OVERLAP, 0):
        return "byte for byte"
    return f"token for token ({split.get(OVERLAP, 0)} byte for byte)"


def _way_to_divide(manifest: Mapping[str, Any]) -> str:
    """Return what keeps equal records together, as this data can be divided at all."""
    if "split" in manifest:
        return "data.split.group_by=prompt"
    return "codex-ml data split ALL.jsonl --group-by prompt (one file of all records)"


def _digests_of(path: Path, max_line_bytes: int) -> Iterator[bytes]:
    for _, _, raw, _ in open_records(path, max_line_bytes).raw_lines():
        if not isinstance(raw, LineFault):
            yield record_digest(raw)


DIGEST_BYTES = 16
Digests = NDArray[np.uint64]  # [records, 2]


def record_digest(raw: bytes) -> bytes:
    """Return a 16-byte digest of the bytes of a record; the first half decides its split."""
    return record_key(raw)[:DIGEST_BYTES]


def prompt_digest(value: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> bytes:
    """Return a 16-byte digest of the prompt of a record, in any format; see `group_key`.

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

    ``numpy.count_nonzero(positions_in(test, train) >= 0)`` records of test also appear in train.
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
