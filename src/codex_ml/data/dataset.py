"""Datasets built from sources: reading, splitting, filtering, tokenization and packing."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import zstandard

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import BY_WEIGHT, DataAccount, Rejects, SplitAccount
from codex_ml.data.contamination import count_overlap_with_file, prompt_digest, record_digest, refuse_overlap
from codex_ml.data.manifest import ContentHasher, build_manifest, warnings_of
from codex_ml.data.records.builder import FilterText, FoundSpan, RecordBuilder
from codex_ml.data.records.chat import MessagesRecord
from codex_ml.data.records.weights import repeat_count
from codex_ml.data.sources import SourceRecord, SourceStream, open_sources
from codex_ml.data.split_utils import SPLIT_NAMES
from codex_ml.data.storage.arrays import ArrayPlace, MemoryArrays, RecordLocation, StoredRecords, TokenArraysWriter
from codex_ml.data.storage.cached_dataset import BuiltDataset, BuiltPart, BuiltSplit, CacheUse, load_or_build
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


OnRecord = Callable[[Path, int], None]
OnFindings = Callable[[str, str, Sequence[FoundSpan], str], None]


@dataclass(frozen=True)
class Dataset:
    """Tokenised records by split, their account, the manifest for ``data_splits.json``, and the lines left out."""

    splits: Mapping[str, StoredRecords]
    account: DataAccount
    manifest: dict[str, Any]
    rejects: tuple[Rejects, ...] = ()

    def require(self, split: str) -> StoredRecords:
        """Return the records of a split that a job cannot do without.

        Raises
        ------
        DataError
            If the split was not asked for, or no record fell into it.
        """
        records = self.splits.get(split)
        if records:
            return records
        dropped = self.account.splits[split].records_dropped if split in self.account.splits else 0
        if dropped:
            raise DataError(
                f"data: no record of the split {split!r} is left: all {dropped} were dropped",
                fix="see data_account for the reasons; most often data.max_length_tokens is too small",
            )
        position = SPLIT_NAMES.index(split) if split in SPLIT_NAMES else 0
        raise DataError(
            f"data: the split {split!r} has no record",
            why="no file or share above 0 is given for it" if records is None else "no record fell into its share",
            fix=f"set data.{split}=FILE.jsonl, or with data.path raise data.split.ratios[{position}], add records, "
            "use data.split.exact_sizes=true, or take another data.split.seed",
        )

    def digest(self, split: str) -> str:
        """Return the SHA-256 over the kept records of a split as they stand in the file, for provenance."""
        return str(self.manifest["splits"][split]["digest"])

    def content_digest(self, split: str) -> str:
        """Return the SHA-256 over what the model sees of a split: token ids and supervision of every kept record.

        It differs where tokenizer, template, filters or cuts differ, though the bytes of the file are the same.
        """
        return str(self.manifest["splits"][split]["content_digest"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user is to be told of this data, one line each."""
        return warnings_of(self.manifest)


def build_dataset(
    data: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    filter_text: FilterText,
    on_findings: OnFindings,
    splits: Collection[str] = SPLIT_NAMES,
    cache_use: CacheUse | None = None,
    on_record: OnRecord | None = None,
) -> Dataset:
    """Build the records of a run, or take them from the cache; neither differs from the other in anything.

    Parameters
    ----------
    data : DataSection
        Where the records lie and how they are read, split and cut.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    filter_text : callable
        The safety filter: every string of a record passes it before anything else is done with the text.
    on_findings : callable
        Takes ``(record_id, field, findings, action)`` for each field in which something was found.
    splits : collection of str
        Which splits are built; the others are divided off and left alone.
    cache_use : CacheUse, optional
        The cache of tokenised data; without one everything is kept in memory.
    on_record : callable, optional
        Told of each record that is read: its file, and its offset there.

    Raises
    ------
    DataError
        If a file or line is faulty, a record is too long (``data.on_overlong=error``), valid or test is the file of
        train or more than ``data.max_overlap_share`` of it stands there, or in any one split more than
        ``data.max_bad_share`` of the records were dropped, no token is supervised, or end-of-sequence never is.
    SafetyError
        If the policy blocks a record; the message names the line and the rule.
    """
    sources = open_sources(data, splits)
    job = _Job(data, tokenizer, filter_text, sources, on_record)
    built = job.make(MemoryArrays()) if cache_use is None else load_or_build(data, sources, cache_use, job.make)
    dataset = _dataset(data, built)
    refuse_overlap(dataset.manifest, data.max_overlap_share)
    for split in built.splits.values():
        for found in split.findings:
            on_findings(found.record_id, found.field, found.spans, found.action)
    return dataset


def _dataset(data: DataSection, built: BuiltDataset) -> Dataset:
    """Return what was made as what a run works with."""
    renders = any(split.has_messages for split in built.splits.values())
    left_out: Counter[str] = Counter()
    for split in built.splits.values():
        left_out.update(split.left_out)
    records = {name: split.records for name, split in built.splits.items()}
    manifest = build_manifest(data, built.splits, built.template_date if renders else None, left_out)
    count_overlap_with_file(manifest, records, data)
    return Dataset(
        splits=records,
        account=_account(built),
        manifest=manifest,
        rejects=tuple(file.rejects for file in built.files if file.rejects),
    )


def _account(built: BuiltDataset) -> DataAccount:
    splits = {name: split.account for name, split in built.splits.items()}
    account = DataAccount(splits, [file.account for file in built.files])
    account.check()
    return account


class _Job:
    """Makes the records of some sources, as often as it is asked to."""

    def __init__(
        self,
        data: DataSection,
        tokenizer: PreTrainedTokenizerBase,
        filter_text: FilterText,
        sources: Sequence[SourceStream],
        on_record: OnRecord | None,
    ) -> None:
        self._on_record = on_record
        self._data = data
        self._tokenizer = RecordTokenizer(tokenizer, data.supervise, data.trust_control_tokens_in_text)
        self._filter_text = filter_text
        self._sources = sources

    def make(self, place: ArrayPlace) -> BuiltDataset:
        """Read all, and put the records where they are to lie; one record is in memory at a time."""
        builder = RecordBuilder(self._data, self._tokenizer, self._filter_text)
        in_the_making: dict[str, _SplitBuilder] = {}
        for source in self._sources:
            for name in source.splits:
                if name not in in_the_making:
                    in_the_making[name] = _SplitBuilder(name, place, self._data.columns)
                in_the_making[name].begin(source)
            for name, record in source:
                in_the_making[name].take(record, builder)
                if self._on_record is not None:
                    self._on_record(source.path, record.offset)
        builder.problems.raise_if_any()
        # Split by split: a large sound one would hide that another is of no use.
        for name, split in in_the_making.items():
            builder.refuse_unlearnable(name, split.account)
            _refuse_bad_share(f"the split {name!r}", split.account, self._data.max_bad_share)
        finished = {name: split.finish(place, builder) for name, split in in_the_making.items()}
        built = BuiltDataset(finished, self._tokenizer.template_date)
        # Lines that are no records have no split. Where some splits only are built, they belong to all of a file.
        account = _account(built)
        total = replace(account.total(), records_read=sum(file.records_read for file in account.files))
        _refuse_bad_share("all splits, with lines that are no records,", total, self._data.max_bad_share)
        return built


class _SplitBuilder:
    """What is gathered of one split while its records come by."""

    def __init__(self, name: str, place: ArrayPlace, columns: Mapping[str, str]) -> None:
        self._name = name
        self._sources: list[SourceStream] = []
        self._columns = columns
        self._writer = TokenArraysWriter(place.sinks(name))
        self._bytes = hashlib.sha256()
        self._content = ContentHasher()
        self._has_messages = False
        self.account = SplitAccount()

    def begin(self, source: SourceStream) -> None:
        """Take the next file; all records that follow are from it."""
        self._sources.append(source)

    def take(self, source: SourceRecord, builder: RecordBuilder) -> None:
        """Take the next record of the split."""
        weight = self._sources[-1].weight if self._name == "train" else 1.0
        copies = repeat_count(source.raw, weight)
        if not copies:
            self.account.records_read += 1
            self.account.drop(BY_WEIGHT)
            return
        self._has_messages |= isinstance(source.record, MessagesRecord)
        record = builder.build(source, self._name, self.account)
        if record is None:
            return
        self.account.repeat(copies - 1)
        try:
            prompt_key = prompt_digest(source.value, self._columns)
        except ValueError:
            prompt_key = b""
        self._bytes.update(source.raw + b"\n")
        place = RecordLocation(
            source.file_name, source.line_number, source.offset, record_digest(source.raw), prompt_key
        )
        for _ in range(copies):
            self._content.add(record)
            self._writer.add(record, place)

    def finish(self, place: ArrayPlace, builder: RecordBuilder) -> BuiltSplit:
        """Return all of it."""
        self._writer.flush()
        return BuiltSplit(
            records=StoredRecords(place.arrays(self._name, self._writer.file_names)),
            account=self.account,
            parts=tuple(BuiltPart(source.key, source.weight, source.file) for source in self._sources),
            digest=f"sha256:{self._bytes.hexdigest()}",
            content_digest=self._content.digest(),
            has_messages=self._has_messages,
            left_out=dict(builder.left_out.get(self._name, {})),
            findings=tuple(builder.findings.get(self._name, ())),
        )


def _refuse_bad_share(which: str, account: SplitAccount, max_bad_share: float) -> None:
    share = account.records_refused / account.records_read if account.records_read else 0.0
    if share > max_bad_share:
        refused = sorted(item for item in account.dropped.items() if item[0] != BY_WEIGHT)
        reasons = ", ".join(f"{reason} {count}" for reason, count in refused)
        raise DataError(
            f"data: {account.records_refused} of {account.records_read} records of {which} were dropped ({share:.1%})",
            why=f"data.max_bad_share allows {max_bad_share:.1%}; reasons: {reasons}",
            fix="raise data.max_length_tokens, choose another data.on_overlong, or raise data.max_bad_share knowingly",
        )


class Packer(Protocol):
    """Takes bytes from the beginning to the end and gives what is to be written for them."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be written by now, perhaps nothing."""
        ...

    def flush(self) -> bytes:
        """Return the rest; nothing can be added any more."""
        ...


class _Plain:
    """Packs nothing."""

    def compress(self, data: bytes, /) -> bytes:
        """Return the bytes as they are."""
        return data

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


def packer_for(path: Path) -> Packer:
    """Return what packs for a name in ``.gz`` or ``.zst``; the same bytes always give the same file."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        # Written this way a member names no file and no time.
        return zlib.compressobj(wbits=31)
    if suffix == ".zst":
        return zstandard.ZstdCompressor().compressobj()
    return _Plain()
