"""What identifies the data of a run: files, digests of bytes and of tokens, offsets, and what stands in two splits."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codex_ml.config.schema.data import DataSection
from codex_ml.data.sources import SourceRecord, Sources
from codex_ml.data.tokenize import TokenizedRecord

Pairs = Sequence[tuple[SourceRecord, TokenizedRecord]]


def build_manifest(
    data: DataSection,
    sources: Sources,
    built: Mapping[str, Pairs],
    template_date: str | None,
    left_out: Mapping[str, int],
) -> dict[str, Any]:
    """Return the content of ``data_splits.json``: for each split its file, digests and the offset of every kept record.

    ``digest`` is over the bytes of the kept records as they stand in the file, ``content_digest`` over what the model
    sees of them. ``template_date`` is the date that a chat template was given for today, where it asks for one;
    ``left_out`` counts the conversations of which it leaves something out.
    """
    splits: dict[str, Any] = {}
    train = {source.raw for source, _ in built.get("train", [])}
    for name, pairs in built.items():
        hasher = hashlib.sha256()
        for source, _ in pairs:
            hasher.update(source.raw + b"\n")
        splits[name] = {
            "source": sources.files[name].to_dict(),
            "records": len(pairs),
            "digest": f"sha256:{hasher.hexdigest()}",
            "content_digest": content_digest(tokenized for _, tokenized in pairs),
            "offsets": [source.offset for source, _ in pairs],
        }
        if name != "train" and "train" in built:
            splits[name]["overlap_with_train"] = sum(source.raw in train for source, _ in pairs)
    manifest: dict[str, Any] = {"schema_version": 1, "splits": splits}
    if template_date is not None:
        manifest["chat_template_date"] = template_date
    if left_out:
        manifest["chat_template_leaves_out"] = dict(sorted(left_out.items()))
    if data.path is not None:
        manifest["split"] = {
            "seed": data.split.seed,
            "ratios": list(data.split.ratios),
            "group_by": data.split.group_by,
            "exact_sizes": data.split.exact_sizes,
        }
    return manifest


def without_membership(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest without the offsets of its records: what identifies the data in a provenance."""
    splits = {
        name: {key: value for key, value in split.items() if key != "offsets"}
        for name, split in manifest["splits"].items()
    }
    return {**manifest, "splits": splits}


def content_digest(records: Iterable[TokenizedRecord]) -> str:
    """Return the SHA-256 over token ids and supervision of records, in their order, the same on every machine."""
    hasher = hashlib.sha256()
    for record in records:
        length = len(record.input_ids)
        hasher.update(struct.pack(f"<q{length}q", length, *record.input_ids))
        hasher.update(bytes(record.supervised))
    return f"sha256:{hasher.hexdigest()}"


def warnings_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the user has to know of the data before numbers are read off it, one line each."""
    lines = []
    for name, split in manifest["splits"].items():
        if overlap := split.get("overlap_with_train", 0):
            lines.append(
                f"data.{name}: {overlap} of {split['records']} records stand in data.train too, byte for byte; "
                "scores on them measure memory"
            )
    if (date := manifest.get("chat_template_date")) is not None:
        lines.append(
            f"the chat template asks for today's date; it is given {date} always, in generation as in training"
        )
    for what, count in manifest.get("chat_template_leaves_out", {}).items():
        part = "the tools" if what == "tools" else f"turns of the {what}"
        lines.append(f"the chat template has no place for {part}: the model does not see them in {count} conversations")
    return tuple(lines)
