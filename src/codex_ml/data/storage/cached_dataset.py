"""Datasets taken from the token cache, or built and stored there, under a key of all inputs."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache as remembered
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import codex_ml
from codex_ml.config.schema.data import RATIO_ORDER, DataSection
from codex_ml.data.accounting import FileAccount, Rejects, SplitAccount
from codex_ml.data.records.builder import FoundIn, FoundSpan
from codex_ml.data.sources import SourceFile, SourceStream
from codex_ml.data.storage.arrays import ArrayPlace, MemoryArrays, StoredRecords
from codex_ml.data.storage.cache import CACHE_VERSION, Entry, EntryBuilder, TokenCache
from codex_ml.data.storage.files import CacheError, DamagedEntryError
from codex_ml.io.atomic import bytes_digest, file_digest

# Where the records lie, and where the entry does, changes nothing in it; what is refused afterwards does not either.
NOT_IN_KEY = frozenset({"path", "files", "train", "valid", "test", "cache_dir", "cache_min_bytes", "max_overlap_share"})
# What stands between the bytes of a file and token ids, besides codex-ml itself.
_LIBRARIES = (
    "transformers",
    "tokenizers",
    "sentencepiece",
    "jinja2",
    "orjson",
    "pydantic",
    "numpy",
    "datasets",
    "pyarrow",
)
_ROOMS = ("data", "safety", "models")


def entry_key(data: DataSection, files: Mapping[str, Path], splits: Collection[str], made_by: Mapping[str, Any]) -> str:
    """Return the digest of all that decides about ids, masks, account and findings of some splits.

    Whatever the data section says is in it, so an option that is added later is too, with all code of the rooms that
    have a hand in it: an entry is rather made once too often than used once too long.

    Parameters
    ----------
    data : DataSection
        How the records are read, split and cut.
    files : mapping
        The files that are read, by the key of the section, in the order in which they are: records lie in it too.
    splits : collection of str
        The splits that are built.
    made_by : mapping
        See `CacheUse`.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    parts = {
        "cache_version": CACHE_VERSION,
        "code": _code_digest(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "data": data.model_dump(mode="json", exclude=set(NOT_IN_KEY)),
        "files": [[key, path.name, file_digest(path)] for key, path in files.items()],
        "splits": sorted(splits),
        "made_by": dict(made_by),
    }
    return bytes_digest(json.dumps(parts, sort_keys=True).encode("utf-8")).removeprefix("sha256:")


@remembered
def _code_digest() -> str:
    package = Path(codex_ml.__file__).parent
    sources = sorted(file for room in _ROOMS for file in (package / room).rglob("*.py"))
    assert {file.relative_to(package).parts[0] for file in sources} == set(_ROOMS), "a room has been moved"
    return bytes_digest("".join(f"{file.relative_to(package)} {file_digest(file)}\n" for file in sources).encode())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# An entry takes two to four times the room of JSON Lines; as much again, and this, is left for checkpoints.
_ROOM_PER_SOURCE_BYTE, _ROOM_LEFT_BYTES = 8, 1 << 30


@dataclass(frozen=True)
class CacheUse:
    """The cache of a run, and what of the run decides about its entries.

    Attributes
    ----------
    cache : TokenCache
        Where the entries lie.
    made_by : mapping
        What makes tokens of records besides the data section: digests of tokenizer and policy, whether the policy is
        in force.
    may_write : bool
        False for a dry run, which uses what is there and leaves everything as it is.
    emit : callable
        Takes what the user is to be told, a line at a time.
    """

    cache: TokenCache
    made_by: Mapping[str, Any]
    may_write: bool
    emit: Callable[[str], None]


@dataclass(frozen=True)
class BuiltPart:
    """One file behind a split: where the data section names it, how often its records stand in train, what it is."""

    key: str
    weight: float
    file: SourceFile


@dataclass(frozen=True)
class BuiltSplit:
    """All that came of the records of one split, from one file after the other."""

    records: StoredRecords
    account: SplitAccount
    parts: tuple[BuiltPart, ...]
    digest: str
    content_digest: str
    has_messages: bool
    left_out: Mapping[str, int]
    findings: tuple[FoundIn, ...]


@dataclass(frozen=True)
class BuiltDataset:
    """All splits that a job asked for, and the date that a chat template is given for today, if it asks."""

    splits: Mapping[str, BuiltSplit]
    template_date: str | None

    @property
    def files(self) -> list[SourceFile]:
        """The files behind the splits, each once: one may stand behind several."""
        parts = [part for split in self.splits.values() for part in split.parts]
        return list({id(part.file): part.file for part in parts}.values())


def load_or_build(
    data: DataSection, sources: Sequence[SourceStream], use: CacheUse, make: Callable[[ArrayPlace], BuiltDataset]
) -> BuiltDataset:
    """Return what an entry holds, or make it and leave an entry for the next start.

    Whatever goes wrong with the cache is said and nothing more: the records are then made in memory. An entry of all
    splits of a file serves whoever asks for some of them.

    Parameters
    ----------
    data : DataSection
        How the records are read, split and cut.
    sources : sequence of SourceStream
        The files.
    use : CacheUse
        The cache.
    make : callable
        Makes the records, given where their arrays are to lie.

    Raises
    ------
    CodexError
        What ``make`` raises.
    """
    before = _states(sources)
    source_bytes = sum(state[0] for state in before or ())
    if before is None or source_bytes < data.cache_min_bytes:
        return make(MemoryArrays())
    files = {source.key: source.path for source in sources}
    wanted = [name for source in sources for name in source.splits]
    try:
        key = entry_key(data, files, wanted, use.made_by)
        candidates = [key]
        everything = [name for name in RATIO_ORDER if data.has_split(name)]
        # Each key costs a reading of the files.
        if data.is_divided and sorted(everything) != sorted(wanted):
            candidates.append(entry_key(data, files, everything, use.made_by))
    except OSError:
        # Reading it will say so better.
        return make(MemoryArrays())
    for candidate in candidates:
        if (found := _found(use, candidate, wanted)) is not None:
            return found
    if use.may_write:
        try:
            return _made_and_kept(use, key, source_bytes, make, lambda: _states(sources) == before)
        except CacheError as error:
            use.emit(f"the tokenised data are not cached: {use.cache.directory}: {error}; the run goes on without")
    return make(MemoryArrays())


def _found(use: CacheUse, key: str, wanted: Collection[str]) -> BuiltDataset | None:
    """Return what an entry holds; None where there is none that can be used."""
    try:
        entry = use.cache.open(key)
        if entry is None:
            return None
        built_dataset = from_entry(entry, wanted)
    except DamagedEntryError as error:
        use.emit(f"the cached tokens {key[:12]} are damaged and not used: {error}")
        if use.may_write:
            use.cache.discard(key)
        return None
    except CacheError as error:
        use.emit(f"the cache of tokens is not used: {use.cache.directory}: {error}")
        return None
    if use.may_write:
        use.cache.note_use(key)
    use.emit(f"tokenised data: taken from the cache, {use.cache.directory / key[:12]}…")
    return built_dataset


def _made_and_kept(
    use: CacheUse,
    key: str,
    source_bytes: int,
    make: Callable[[ArrayPlace], BuiltDataset],
    is_unchanged: Callable[[], bool],
) -> BuiltDataset:
    """Make the records in an entry of the cache, and put it in its place where the files are still the same.

    Raises
    ------
    CacheError
        If the disk does not take it.
    """
    use.cache.require_room(_ROOM_PER_SOURCE_BYTE * source_bytes + _ROOM_LEFT_BYTES)
    with use.cache.building(key) as builder:
        built_dataset = make(builder)
        if is_unchanged():
            _publish(builder, built_dataset, use)
        return built_dataset


def _publish(builder: EntryBuilder, built_dataset: BuiltDataset, use: CacheUse) -> None:
    try:
        size = builder.publish(entry_body(built_dataset), entry_notes(built_dataset))
    except CacheError as error:
        # The arrays stay as long as they are mapped, whatever becomes of their files.
        use.emit(f"the tokenised data are not cached: {use.cache.directory}: {error}; the run goes on without")
    else:
        use.emit(
            f"tokenised data: {size:,} bytes kept for the next start in {use.cache.directory} (see codex-ml data cache)"
        )


def entry_body(built_dataset: BuiltDataset) -> dict[str, Any]:
    """Return what an entry says of its splits, as JSON values."""
    built, files = built_dataset.splits, built_dataset.files
    return {
        "file_names": {name: list(split.records.file_names) for name, split in built.items()},
        "splits": {
            name: {
                "account": vars(split.account) | {"dropped": dict(split.account.dropped)},
                "parts": [
                    [part.key, part.weight, [id(file) for file in files].index(id(part.file))] for part in split.parts
                ],
                "digest": split.digest,
                "content_digest": split.content_digest,
                "has_messages": split.has_messages,
                "left_out": dict(split.left_out),
            }
            for name, split in built.items()
        },
        "files": [
            {
                "name": file.name,
                "digest": file.digest,
                "byte_count": file.byte_count,
                "format": file.format,
                "account": asdict(file.account),
            }
            for file in files
        ],
        "template_date": built_dataset.template_date,
    }


def entry_notes(built_dataset: BuiltDataset) -> bytes:
    """Return findings and rejected lines, one JSON array a line: positions and ids, and no word of text."""
    lines = [json.dumps([name, *found]) for name, split in built_dataset.splits.items() for found in split.findings]
    lines += [
        json.dumps([number, *reject]) for number, file in enumerate(built_dataset.files) for reject in file.rejects
    ]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def from_entry(entry: Entry, wanted: Collection[str]) -> BuiltDataset:
    """Return what an entry holds of some splits.

    Raises
    ------
    DamagedEntryError
        If it does not hold what an entry holds.
    """
    try:
        findings: dict[str, list[FoundIn]] = {name: [] for name in entry.body["splits"]}
        rejects = [Rejects(file["name"]) for file in entry.body["files"]]
        for line in entry.notes.splitlines():
            of, *rest = json.loads(line)
            if isinstance(of, str):
                record_id, field, action, spans = rest
                findings[of].append(FoundIn(record_id, field, action, tuple(FoundSpan(*span) for span in spans)))
            else:
                rejects[of].add(*rest)
        files = [
            SourceFile(**{**file, "account": FileAccount(**file["account"]), "rejects": rejects[number]})
            for number, file in enumerate(entry.body["files"])
        ]
        built = {
            name: BuiltSplit(
                records=StoredRecords(entry.arrays[name]),
                account=SplitAccount(**{**split["account"], "dropped": Counter(split["account"]["dropped"])}),
                parts=tuple(BuiltPart(key, weight, files[number]) for key, weight, number in split["parts"]),
                digest=split["digest"],
                content_digest=split["content_digest"],
                has_messages=split["has_messages"],
                left_out=split["left_out"],
                findings=tuple(findings[name]),
            )
            for name, split in entry.body["splits"].items()
            if name in wanted
        }
        date: str | None = entry.body["template_date"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DamagedEntryError(f"its description does not hold what it should ({type(error).__name__})") from error
    return BuiltDataset(built, date)


def _states(sources: Sequence[SourceStream]) -> list[tuple[int, int, int]] | None:
    """Return what tells that a file was written to, for each; None where one cannot be looked at."""
    try:
        found = [source.path.stat() for source in sources]
    except OSError:
        return None
    return [(status.st_size, status.st_mtime_ns, status.st_ino) for status in found]
