"""What of valid and test stands in train too: counted also where train itself is not built, told, and refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from codex_ml.config.schema.data import DataSection
from codex_ml.data.overlap import Digests, as_digests, record_digest
from codex_ml.data.problems import LineFault
from codex_ml.data.readers import open_records
from codex_ml.errors import DataError

OVERLAP, SHARED_PROMPTS = "overlap_with_train", "prompts_shared_with_train"


class StoredBytes(Protocol):
    """Records of a split that can be looked for among others."""

    def found_in(self, digests: Digests) -> int:
        """Count the records whose bytes have one of these digests."""
        ...


def count_overlap_with_file(manifest: Mapping[str, Any], records: Mapping[str, StoredBytes], data: DataSection) -> None:
    """Add to a manifest how many records of each split stand in the file of train, where train was not built itself.

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
    """Yield what the user is to be told of records and prompts that stand in two splits."""
    for name, split in manifest["splits"].items():
        overlap, prompts = split.get(OVERLAP, 0), split.get(SHARED_PROMPTS, 0)
        if overlap:
            yield (
                f"data.{name}: {overlap} of {split['records']} records stand in data.train too, byte for byte; "
                "scores on them measure memory"
            )
        if prompts > overlap:
            yield (
                f"data.{name}: the prompts of {prompts} of {split['records']} records stand in data.train too; "
                "data.split.group_by=prompt keeps records of one prompt together"
            )


def refuse_overlap(manifest: Mapping[str, Any], max_share: float) -> None:
    """Stop where so much of a split was trained on that a score on it says nothing.

    Raises
    ------
    DataError
        If the records of a split that stand in train, byte for byte, are a larger share than ``max_share``.
    """
    for name, split in manifest["splits"].items():
        overlap, count = split.get(OVERLAP, 0), split["records"]
        if count and overlap / count > max_share:
            share = f"{overlap} of {count} records ({overlap / count:.1%})"
            raise DataError(
                f"data.{name}: {share} stand in data.train too, byte for byte",
                why=f"data.max_overlap_share allows {max_share:.1%}; a score on them measures memory, not skill",
                fix="divide one file by data.path, which keeps equal records together, or take other records; with "
                "data.max_overlap_share they are allowed knowingly",
            )


def _digests_of(path: Path, max_line_bytes: int) -> Iterator[bytes]:
    for _, _, raw, _ in open_records(path, max_line_bytes).raw_lines():
        if not isinstance(raw, LineFault):
            yield record_digest(raw)
