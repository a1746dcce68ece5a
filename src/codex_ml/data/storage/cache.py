"""Tokenised data kept on disk under the digest of all that made them: whole entries, private, checked when opened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.data.storage.arrays import PARTS, Sink, TokenArrays
from codex_ml.data.storage.files import CacheError, DamagedEntryError, FileRecord, FileSink, map_file
from codex_ml.io.atomic import PARTIAL_SUFFIX, Storage, bytes_digest, make_locked_directory, remove_abandoned
from codex_ml.io.untrusted import read_json

# Where runs keep theirs, below run.output_dir.
TOKEN_CACHE_NAME = ".token-cache"
ENTRY_NAME = "entry.json"
NOTES_NAME = "notes.ndjson"
CACHE_VERSION = 2
KEY = re.compile(r"[0-9a-f]{64}")

STAGED_ENTRY = re.compile(rf"\.[0-9a-f]{{64}}\.[0-9a-f]{{8}}{re.escape(PARTIAL_SUFFIX)}")
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True)
class Entry:
    """An entry that was found whole.

    Attributes
    ----------
    body : mapping
        What its builder said of it.
    arrays : mapping
        The arrays of each split, mapped from its files.
    notes : bytes
        Further notes of its builder, one JSON value per line.
    """

    body: Mapping[str, Any]
    arrays: Mapping[str, TokenArrays]
    notes: bytes


class TokenCache:
    """A directory of entries, each a directory named by its key.

    An entry is built in a staging directory, synced and renamed, and never changed later. A partial entry is never
    taken for a complete one, processes do not wait for each other, and a process keeps an open entry that is deleted.

    Parameters
    ----------
    directory : Path
        Made, private, when the first entry is built.
    storage : Storage, optional
        The disk.
    """

    def __init__(self, directory: Path, storage: Storage | None = None) -> None:
        self.directory = directory
        self._storage = storage or Storage()

    def open(self, key: str) -> Entry | None:
        """Return an entry whose every byte is as it was written; None where there is none.

        Raises
        ------
        DamagedEntryError
            If there is one, and it is not whole.
        CacheError
            If the directory is open to other users' hands, or cannot be read.
        """
        path = self.directory / key
        if not path.is_dir():
            return None
        refuse_shared(self.directory)
        try:
            return open_entry(path)
        except FileNotFoundError:
            # Deleted by another process in between.
            if not path.is_dir():
                return None
            raise DamagedEntryError("a file of it is missing") from None
        except OSError as error:
            raise CacheError(f"{error.strerror or error}") from error

    def note_use(self, key: str) -> None:
        """Leave a mark of when an entry was last used."""
        with contextlib.suppress(OSError):
            os.utime(self.directory / key / ENTRY_NAME)

    def discard(self, key: str) -> None:
        """Delete an entry, as far as that can be done."""
        with contextlib.suppress(OSError):
            remove_entry(self.directory / key, self._storage)

    def require_room(self, needed_bytes: int) -> None:
        """Raise `CacheError` unless the disk has this much free space."""
        place = self.directory
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            free_bytes = self._storage.free_bytes(place)
        except OSError as error:
            raise CacheError(f"{error.strerror or error}") from error
        if free_bytes < needed_bytes:
            raise CacheError(f"{free_bytes:,} bytes are free, and it is kept only where {needed_bytes:,} are")

    @contextmanager
    def building(self, key: str) -> Iterator[EntryBuilder]:
        """Give a builder of an entry; what it has not published by the end is deleted.

        Raises
        ------
        CacheError
            If nothing can be written there.
        """
        made = [place for place in (self.directory, *self.directory.parents) if not place.exists()]
        try:
            self._storage.make_directory(self.directory)
            refuse_shared(self.directory)
            remove_abandoned(self.directory, STAGED_ENTRY, self._storage)
            staged = _staged_name(self.directory / key)
            descriptor = make_locked_directory(staged, self._storage)
        except OSError as error:
            _remove_empty(made)
            raise CacheError(f"{error.strerror or error}") from error
        builder = EntryBuilder(key, staged, self.directory / key, self._storage)
        try:
            yield builder
        finally:
            os.close(descriptor)
            builder.close()
            with contextlib.suppress(OSError):
                if staged.is_dir():
                    self._storage.remove_tree(staged)
            # A run that is refused leaves nothing behind.
            _remove_empty(made)


class EntryBuilder:
    """Writes the files of one entry; made by `TokenCache.building`."""

    def __init__(self, key: str, staged: Path, target: Path, storage: Storage) -> None:
        self._key = key
        self._staged = staged
        self._target = target
        self._storage = storage
        self._sinks: dict[str, FileSink] = {}
        self._files: dict[str, FileRecord] = {}

    def sinks(self, split: str) -> Mapping[str, Sink]:
        """Return what takes the arrays of a split."""
        sinks: dict[str, FileSink] = {}
        for part in PARTS:
            name = f"{split}.{part}"
            sinks[part] = self._sinks[name] = FileSink(self._staged / name, self._storage)
        return sinks

    def arrays(self, split: str, file_names: Sequence[str]) -> TokenArrays:
        """Return the finished arrays of a split, mapped from their files; they outlive the entry."""
        buffers: dict[str, Any] = {}
        for part in PARTS:
            name = f"{split}.{part}"
            self._files[name] = self._sinks.pop(name).finish()
            try:
                buffers[part] = map_file(self._staged / name)
            except OSError as error:
                raise CacheError(f"{name}: {error.strerror or error}") from error
        return TokenArrays.of_buffers(buffers, file_names)

    def publish(self, body: Mapping[str, Any], notes: bytes) -> int:
        """Put the entry in its place, whole, unless another process was first; return its size in bytes.

        Raises
        ------
        CacheError
            If the disk does not take it.
        """
        try:
            with contextlib.closing(FileSink(self._staged / NOTES_NAME, self._storage)) as sink:
                sink.write(notes)
                self._files[NOTES_NAME] = sink.finish()
            files = {name: record._asdict() for name, record in self._files.items()}
            content = {"version": CACHE_VERSION, "key": self._key, "files": files, "body": body}
            sealed = {**content, "seal": _seal(content)}
            # In ASCII: names of files may be no Unicode.
            self._storage.write_bytes(self._staged / ENTRY_NAME, json.dumps(sealed, indent=2).encode("ascii"))
            self._storage.fsync_directory(self._staged)
            size = bytes_in(self._staged)
            if not self._target.is_dir():
                self._put_in_place()
        except OSError as error:
            raise CacheError(f"{error.strerror or error}") from error
        return size

    def _put_in_place(self) -> None:
        try:
            self._storage.replace(self._staged, self._target)
        except OSError:
            # Another process was first, in the last instant; what it built of the same is the same.
            if not self._target.is_dir():
                raise
        else:
            self._storage.fsync_directory(self._target.parent)

    def close(self) -> None:
        """Close what is open still."""
        for sink in self._sinks.values():
            sink.close()


def open_entry(path: Path, fully: bool = False) -> Entry:
    """Return the entry in a directory.

    Parameters
    ----------
    path : Path
        The directory, named by the key.
    fully : bool
        Whether SHA-256 is compared in addition to CRC-32: detects deliberate changes, at twice the time.

    Raises
    ------
    DamagedEntryError
        If anything in it is not as it was written.
    OSError
        If it cannot be read.
    """
    content = read_entry(path)
    buffers: dict[str, Any] = {}
    try:
        for name, record in content["files"].items():
            buffers[name] = map_file(path / Path(name).name, FileRecord(**record), fully)
        arrays = {
            split: TokenArrays.of_buffers({part: buffers[f"{split}.{part}"] for part in PARTS}, names)
            for split, names in content["body"]["file_names"].items()
        }
        return Entry(content["body"], arrays, bytes(buffers[NOTES_NAME]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedEntryError(f"its files do not fit each other ({error})") from error


def read_entry(path: Path) -> dict[str, Any]:
    """Return what ``entry.json`` says, as it was written.

    Raises
    ------
    DamagedEntryError
        If it is not.
    OSError
        If it cannot be read.
    """
    try:
        content = read_json(path / ENTRY_NAME, follow_links=False)
        unsealed = {name: value for name, value in content.items() if name != "seal"}
        is_whole = content["seal"] == _seal(unsealed)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedEntryError(f"{ENTRY_NAME} is damaged ({type(error).__name__})") from error
    if not is_whole:
        raise DamagedEntryError(f"{ENTRY_NAME} is damaged (a byte changed)")
    if content["version"] != CACHE_VERSION or content["key"] != path.name:
        raise DamagedEntryError("it belongs to another version, or to another key")
    return unsealed


def refuse_shared(directory: Path) -> None:
    """Raise `CacheError` if others than this user may have written into the cache."""
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
        raise CacheError("the directory belongs to, or may be written by, another user")


def remove_entry(path: Path, storage: Storage) -> None:
    """Delete an entry, if it is there; it vanishes at once, though its files take their time.

    Raises
    ------
    OSError
        If it may not be deleted.
    """
    doomed = _staged_name(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # another process was first
    try:
        # Under its new name it looks like a leftover of a dead process: the lock shows that a process uses it.
        with contextlib.suppress(BlockingIOError):  # who built it, or deletes it, holds it still
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            storage.replace(path, doomed)
            storage.remove_tree(doomed)
    finally:
        os.close(descriptor)


def is_staged_name(name: str) -> bool:
    """Tell whether a directory in which an entry is being built may be called so."""
    return STAGED_ENTRY.fullmatch(name) is not None


def is_own_directory(path: Path) -> bool:
    """Tell whether there is a directory, and not only a link to one."""
    return path.is_dir() and not path.is_symlink()


def bytes_in(directory: Path) -> int:
    """Return the bytes of the files in a directory, of those that are there when they are looked at."""
    total = 0
    with contextlib.suppress(FileNotFoundError):  # it is being deleted, or renamed
        for item in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += item.stat(follow_symlinks=False).st_size
    return total


def _remove_empty(directories: Sequence[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _staged_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


def _seal(content: Mapping[str, Any]) -> str:
    return bytes_digest(json.dumps(content, sort_keys=True, ensure_ascii=True).encode("ascii"))
