"""The cache of tokenised data: whole entries or none, private, and every changed byte noticed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.data.storage.arrays import RecordLocation, StoredRecords, TokenArraysWriter
from codex_ml.data.storage.cache import (
    ENTRY_NAME,
    STAGED_ENTRY,
    EntryBuilder,
    TokenCache,
    is_staged_name,
    open_entry,
    remove_entry,
)
from codex_ml.data.storage.files import CacheError, DamagedEntryError
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.io.atomic import Storage, remove_abandoned

KEY = "a" * 64
RECORDS = [
    TokenizedRecord(f"f.jsonl:{number}", (1, 2, number), (False, True, True), 1, f"p{number}", "r")
    for number in range(1, 6)
]


def _fill(builder: EntryBuilder, split: str = "train") -> StoredRecords:
    writer = TokenArraysWriter(builder.sinks(split))
    for number, record in enumerate(RECORDS, start=1):
        writer.add(record, RecordLocation("f.jsonl", number, number, bytes(16), b""))
    writer.flush()
    return StoredRecords(builder.arrays(split, writer.file_names))


def _build(cache: TokenCache, key: str = KEY) -> int:
    with cache.building(key) as builder:
        _fill(builder)
        return builder.publish({"file_names": {"train": ["f.jsonl"]}, "more": 1}, b"found\n")


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    """Return a cache in a directory that is not there yet."""
    return TokenCache(tmp_path / "runs" / "cache")


def test_token_cache_entry_comes_back_as_it_was_built(cache: TokenCache) -> None:
    """Records, what was said of them, and findings; nothing else is in the directory."""
    assert cache.open(KEY) is None
    size = _build(cache)
    entry = cache.open(KEY)
    assert size == sum(file.stat().st_size for file in (cache.directory / KEY).iterdir())
    assert entry is not None
    assert StoredRecords(entry.arrays["train"]) == RECORDS
    assert entry.body["more"] == 1
    assert entry.notes == b"found\n"
    assert [item.name for item in cache.directory.iterdir()] == [KEY]
    assert cache.open("b" * 64) is None


def test_token_cache_empty_split_is_kept(cache: TokenCache) -> None:
    """Nothing cannot be mapped, and is no fault."""
    with cache.building(KEY) as builder:
        builder.sinks("test")
        arrays = builder.arrays("test", [])
        assert builder.publish({"file_names": {"test": []}}, b"")
    entry = cache.open(KEY)
    assert entry is not None
    assert StoredRecords(entry.arrays["test"]) == StoredRecords(arrays) == []


def test_token_cache_files_are_private(cache: TokenCache) -> None:
    """Tokens are the data in other clothes: mode 0600 in directories of mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        _build(cache)
    finally:
        os.umask(before)
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert (cache.directory / KEY).stat().st_mode & 0o777 == 0o700
    assert {item.stat().st_mode & 0o777 for item in (cache.directory / KEY).iterdir()} == {0o600}


def test_token_cache_unpublished_entry_leaves_nothing(cache: TokenCache) -> None:
    """Also where the build fails in the middle; what was mapped stays readable."""
    with cache.building(KEY) as builder:
        records = _fill(builder)
    assert records == RECORDS
    with contextlib.suppress(RuntimeError), cache.building(KEY) as builder:
        builder.sinks("train")
        raise RuntimeError
    assert not cache.directory.parent.exists()
    assert cache.open(KEY) is None


def test_token_cache_deleted_entry_stays_readable_for_who_has_it_open(cache: TokenCache) -> None:
    """A run goes on though its cache is cleared."""
    _build(cache)
    entry = cache.open(KEY)
    cache.discard(KEY)
    cache.discard(KEY)
    assert entry is not None
    assert StoredRecords(entry.arrays["train"]) == RECORDS
    assert cache.open(KEY) is None


def test_token_cache_two_builders_of_one_entry_first_wins(cache: TokenCache) -> None:
    """Both have the records; one entry is there, and it is whole."""
    with cache.building(KEY) as one, cache.building(KEY) as other:
        first, second = _fill(one), _fill(other)
        other.publish({"file_names": {"train": ["f.jsonl"]}, "by": "other"}, b"")
        one.publish({"file_names": {"train": ["f.jsonl"]}, "by": "one"}, b"")
    assert first == second == RECORDS
    entry = cache.open(KEY)
    assert entry is not None
    assert entry.body["by"] == "other"
    assert [item.name for item in cache.directory.iterdir()] == [KEY]


class _LateRival(Storage):
    """A disk on which another process takes the place in the instant before the rename."""

    def replace(self, source: Path, target: Path) -> None:
        _build(TokenCache(target.parent))
        super().replace(source, target)


def test_token_cache_rival_in_the_last_instant_wins(tmp_path: Path) -> None:
    """The rename onto an entry fails, and that is no fault."""
    cache = TokenCache(tmp_path / "cache", _LateRival())
    assert _build(cache)
    assert cache.open(KEY) is not None
    assert _staged_entries(cache.directory) == []


@pytest.mark.parametrize("name", ["train.tokens", "train.records", "train.texts", "notes.ndjson", ENTRY_NAME])
def test_open_every_changed_missing_or_added_byte_is_noticed(cache: TokenCache, name: str) -> None:
    """In any file of an entry, at any place."""
    _build(cache)
    path = cache.directory / KEY / name
    content = path.read_bytes()
    for position in sorted({0, len(content) // 2, len(content) - 2, *range(0, len(content), 7)}):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(DamagedEntryError):
            cache.open(KEY)
    for other in (content[:-2], b"", content + b"x"):
        path.write_bytes(other)
        with pytest.raises(DamagedEntryError):
            cache.open(KEY)
    path.unlink()
    with pytest.raises(DamagedEntryError, match="missing"):
        cache.open(KEY)


def test_open_forged_bytes_are_noticed_when_checked_fully(cache: TokenCache) -> None:
    """CRC-32 tells accidents; SHA-256 tells intent, and is compared where it is asked for."""
    _build(cache)
    path = cache.directory / KEY / "notes.ndjson"
    # The generator polynomial itself, laid over the bytes, changes no CRC-32.
    forged = bytearray(path.read_bytes())
    for index, byte in enumerate(_SAME_CRC):
        forged[index] ^= byte
    path.write_bytes(forged)
    open_entry(cache.directory / KEY)
    with pytest.raises(DamagedEntryError, match="a byte of it changed"):
        open_entry(cache.directory / KEY, fully=True)


# x**32 + x**26 + … + 1, least significant bit first.
_SAME_CRC = bytes.fromhex("410671db01")


def test_open_entry_of_another_version_or_key_is_refused(cache: TokenCache) -> None:
    """A directory that was renamed is not what it says."""
    _build(cache)
    (cache.directory / KEY).rename(cache.directory / ("b" * 64))
    with pytest.raises(DamagedEntryError, match="another version, or to another key"):
        cache.open("b" * 64)


def test_open_directory_of_others_is_not_used(cache: TokenCache) -> None:
    """Where others may write, they may have put tokens of their choice."""
    _build(cache)
    cache.directory.chmod(0o770)
    with pytest.raises(CacheError, match="another user"):
        cache.open(KEY)
    with pytest.raises(CacheError, match="another user"), cache.building(KEY):
        pass


def test_open_link_in_place_of_a_file_is_not_followed(cache: TokenCache, tmp_path: Path) -> None:
    """A file of the cache is a file."""
    _build(cache)
    path = cache.directory / KEY / "train.tokens"
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(DamagedEntryError):
        cache.open(KEY)


class _FailingDisk(Storage):
    """A disk that fails at an operation."""

    def __init__(self, operation: int) -> None:
        self.left = operation

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_file(self, path: Path, flags: int) -> int:
        self._count()
        return super().open_file(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._count()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._count()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._count()
        super().replace(source, target)

    def make_one_directory(self, path: Path) -> None:
        self._count()
        super().make_one_directory(path)


def test_building_disk_that_fails_anywhere_is_a_fault_of_the_cache_alone(tmp_path: Path) -> None:
    """At each operation: one kind of error, and what is there afterwards is whole or absent."""
    for operation in range(100):
        directory = tmp_path / f"cache-{operation}"
        fault = _fault_of_building(TokenCache(directory, _FailingDisk(operation)))
        if fault is None:
            break
        assert "No space left" in fault
        left = list(directory.iterdir()) if directory.is_dir() else []
        assert left in ([], [directory / KEY])
        for path in left:
            open_entry(path, fully=True)
    assert operation > 20


def _fault_of_building(cache: TokenCache) -> str | None:
    try:
        _build(cache)
    except CacheError as error:
        return str(error)
    return None


def _staged_entries(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if is_staged_name(path.name)]


def test_building_removes_abandoned_entries_and_leaves_locked_ones(cache: TokenCache) -> None:
    """A builder locks its directory until its process ends."""
    with cache.building(KEY) as builder:
        _fill(builder)
        (at_work,) = _staged_entries(cache.directory)
        dead = cache.directory / f".{'b' * 64}.00000000.partial"
        dead.mkdir()
        (dead / "train.tokens").write_bytes(b"1234")
        (cache.directory / "notes").mkdir()
        assert remove_abandoned(cache.directory, STAGED_ENTRY, Storage()) == [dead.name]
        assert _staged_entries(cache.directory) == [at_work]
        assert (cache.directory / "notes").is_dir()
    assert _staged_entries(cache.directory) == []


class _DiskWithCompany(Storage):
    """A disk on which another process does something right before a tree is deleted."""

    def __init__(self, before_removing: Callable[[Path], object]) -> None:
        super().__init__()
        self._before_removing = before_removing

    def remove_tree(self, path: Path) -> None:
        self._before_removing(path)
        super().remove_tree(path)


def test_remove_entry_old_entry_is_not_taken_for_abandoned(cache: TokenCache) -> None:
    """Under its new name it keeps its old time, and a builder elsewhere deletes what is old and held by nobody."""
    _build(cache)
    os.utime(cache.directory / KEY, (1, 1))
    freed: list[list[str]] = []
    remove_entry(
        cache.directory / KEY,
        _DiskWithCompany(lambda _: freed.append(remove_abandoned(cache.directory, STAGED_ENTRY, Storage()))),
    )
    assert freed == [[]]
    assert list(cache.directory.iterdir()) == []


def test_remove_entry_that_is_gone_is_done(cache: TokenCache) -> None:
    """Whether it went before, or while its files are deleted, it is no fault of who wanted it gone."""
    remove_entry(cache.directory / KEY, Storage())
    _build(cache)
    remove_entry(cache.directory / KEY, _DiskWithCompany(shutil.rmtree))
    assert list(cache.directory.iterdir()) == []


def test_remove_abandoned_that_another_deletes_meanwhile_is_no_fault(cache: TokenCache) -> None:
    """Two cleaners meet; the builder that wanted room is not refused for it."""
    _build(cache)
    dead = cache.directory / f".{'b' * 64}.00000000.partial"
    dead.mkdir()
    os.utime(dead, (1, 1))
    assert remove_abandoned(cache.directory, STAGED_ENTRY, _DiskWithCompany(shutil.rmtree)) == []
    assert not dead.exists()


def test_note_use_marks_the_entry_alone(cache: TokenCache) -> None:
    """So that `clear --older-than` asks when it was last of use."""
    _build(cache)
    path = cache.directory / KEY / ENTRY_NAME
    os.utime(path, (1, 1))
    cache.note_use(KEY)
    assert time.time() - path.stat().st_mtime < 60
    cache.note_use("b" * 64)
    assert cache.open(KEY) is not None


def test_entry_json_says_neither_text_nor_path(cache: TokenCache, tmp_path: Path) -> None:
    """What lists the cache reads sizes and names."""
    _build(cache)
    content = (cache.directory / KEY / ENTRY_NAME).read_text("utf-8")
    assert str(tmp_path) not in content
    assert set(json.loads(content)) == {"version", "key", "files", "body", "seal"}
