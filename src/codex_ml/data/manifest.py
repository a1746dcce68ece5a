"""The identity of the data of a run: files, digests of bytes and tokens, offsets, and overlaps between splits."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from codex_ml.config.schema.data import DataSection
from codex_ml.data.contamination import CONTENT_OVERLAP, OVERLAP, SHARED_PROMPTS, leak_warnings
from codex_ml.data.sources import SourceFile
from codex_ml.data.storage.arrays import StoredRecords
from codex_ml.data.tokenization.tokenizer import TokenizedRecord


class ManifestPart(Protocol):
    """What the manifest says of one file behind a split."""

    @property
    def key(self) -> str:
        """Where the data section names it."""
        ...

    @property
    def weight(self) -> float:
        """Copies of its records in an epoch of train."""
        ...

    @property
    def file(self) -> SourceFile:
        """What it is."""
        ...


class ManifestSplit(Protocol):
    """What the manifest says of one split."""

    @property
    def records(self) -> StoredRecords:
        """The kept records."""
        ...

    @property
    def parts(self) -> Sequence[ManifestPart]:
        """The files that they come from, in their order."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over their bytes in the file."""
        ...

    @property
    def content_digest(self) -> str:
        """SHA-256 over what the model sees of them."""
        ...


def build_manifest(
    data: DataSection, built: Mapping[str, ManifestSplit], template_date: str | None, left_out: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of ``data_splits.json``: for each split its file, digests and the offset of every kept record.

    ``overlap_with_train`` counts the records whose bytes also appear in train, ``content_overlap_with_train`` those
    whose tokens do, ``prompts_shared_with_train`` those whose prompt does. ``template_date`` is
    the date that a chat template was given for today, where it asks for one; ``left_out`` counts the conversations of
    which it leaves something out.
    """
    splits: dict[str, Any] = {}
    train = built.get("train")
    for name, split in built.items():
        splits[name] = {
            "records": len(split.records),
            "digest": split.digest,
            "content_digest": split.content_digest,
            **(_parts(name, split) if data.files else _only_part(split)),
        }
        if name != "train" and train is not None:
            splits[name][OVERLAP] = split.records.shared_bytes(train.records)
            splits[name][CONTENT_OVERLAP] = split.records.shared_content(train.records)
            splits[name][SHARED_PROMPTS] = split.records.shared_prompts(train.records)
    manifest: dict[str, Any] = {"schema_version": 1, "splits": splits}
    if template_date is not None:
        manifest["chat_template_date"] = template_date
    if left_out:
        manifest["chat_template_leaves_out"] = dict(sorted(left_out.items()))
    if data.is_divided:
        manifest["split"] = {
            "seed": data.split.seed,
            "ratios": list(data.split.ratios),
            "group_by": data.split.group_by,
            "exact_sizes": data.split.exact_sizes,
        }
    return manifest


def without_membership(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest without the offsets of its records: what identifies the data in a provenance."""
    splits: dict[str, Any] = {}
    for name, split in manifest["splits"].items():
        splits[name] = {key: value for key, value in split.items() if key != "offsets"}
        if "parts" in split:
            splits[name]["parts"] = [
                {key: value for key, value in part.items() if key != "offsets"} for part in split["parts"]
            ]
    return {**manifest, "splits": splits}


def membership_of(split: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], list[int]]]:
    """Return the files behind a split of a manifest: key of the data section, source, and offsets of its records.

    The key is empty where the split has one file, which the name of the split or ``data.path`` names.

    Raises
    ------
    KeyError, TypeError
        If the manifest is not what `build_manifest` makes.
    """
    if "parts" in split:
        return [(part["key"], part["source"], list(part["offsets"])) for part in split["parts"]]
    return [("", split["source"], list(split["offsets"]))]


def _only_part(split: ManifestSplit) -> dict[str, Any]:
    (part,) = split.parts
    return {"source": part.file.to_dict(), "offsets": split.records.offsets}


def _parts(name: str, split: ManifestSplit) -> dict[str, Any]:
    """Return what is said of each file where a split has several; a record that is repeated has one offset."""
    counts, offsets, start = split.records.counts_by_file(), split.records.offsets, 0
    parts = []
    for part in split.parts:
        count = counts.get(part.file.name, 0)
        parts.append(
            {
                "key": part.key,
                "weight": part.weight if name == "train" else 1.0,
                "source": part.file.to_dict(),
                "records": count,
                "offsets": list(dict.fromkeys(offsets[start : start + count])),
            }
        )
        start += count
    return {"parts": parts}


class ContentHasher:
    """SHA-256 over token ids and supervision of records, in their order, the same on every machine."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, record: TokenizedRecord) -> None:
        """Take the next record."""
        length = len(record.input_ids)
        self._hasher.update(struct.pack(f"<q{length}q", length, *record.input_ids))
        self._hasher.update(bytes(record.supervised))

    def digest(self) -> str:
        """Return the digest of all so far."""
        return f"sha256:{self._hasher.hexdigest()}"


def warnings_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the user has to know of the data before numbers are read off it, one line each."""
    lines = list(leak_warnings(manifest))
    if (date := manifest.get("chat_template_date")) is not None:
        lines.append(
            f"the chat template asks for today's date; it is given {date} always, in generation as in training"
        )
    for what, count in manifest.get("chat_template_leaves_out", {}).items():
        part = "the tools" if what == "tools" else f"turns of the {what}"
        lines.append(f"the chat template has no place for {part}: the model does not see them in {count} conversations")
    return tuple(lines)
