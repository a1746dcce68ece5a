"""Entries of a token cache for `codex-ml data cache`: list, verify and clear."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from codex_ml.data.storage.arrays import PARTS
from codex_ml.data.storage.cache import (
    ENTRY_NAME,
    KEY,
    NOTES_NAME,
    STAGED_ENTRY,
    bytes_in,
    is_own_directory,
    is_staged_name,
    open_entry,
    read_entry,
    remove_entry,
)
from codex_ml.data.storage.files import DamagedEntryError
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage, remove_abandoned
from codex_ml.io.clock import format_time

State = Literal["whole", "damaged", "unfinished"]

_OWN_FILE = re.compile(rf"[a-z]+\.({'|'.join(PARTS)})|{re.escape(ENTRY_NAME)}|{re.escape(NOTES_NAME)}")


@dataclass(frozen=True)
class CacheItem:
    """An entry, or the unfinished entry of an active or dead process.

    ``state`` of an entry says what its description shows; only `check_items` looks at every byte.
    """

    path: Path
    state: State
    byte_count: int
    last_used: datetime
    sources: tuple[str, ...] = ()
    records: int = 0
    tokens: int = 0
    fault: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.path.name,
            "state": self.state,
            "bytes": self.byte_count,
            "last_used": format_time(self.last_used),
            "sources": list(self.sources),
            "records": self.records,
            "tokens": self.tokens,
            "fault": self.fault,
        }

    def line(self, now: datetime) -> str:
        """Return it as a line for people."""
        age_days = max(0.0, (now - self.last_used).total_seconds() / 86400)
        what = {
            "whole": f"{self.records:,} records, {self.tokens:,} tokens of {', '.join(self.sources)}",
            "damaged": f"DAMAGED: {self.fault}",
            "unfinished": "unfinished: being built, or left behind",
        }[self.state]
        return f"{self.path.name.lstrip('.')[:12]}  {self.byte_count:>15,} bytes  {age_days:7.1f} days  {what}"


@dataclass(frozen=True)
class CacheContent:
    """The content of a cache directory: its own items, and foreign names."""

    items: tuple[CacheItem, ...]
    unknown: tuple[str, ...]


def look_into(directory: Path) -> CacheContent:
    """Return the content of a cache, the most recently used item first; empty if the directory does not exist.

    Raises
    ------
    DataError
        If it is no directory, or holds things, none of which is a cache's own.
    """
    if not directory.exists():
        return CacheContent((), ())
    if not directory.is_dir():
        raise DataError(
            f"{directory} is no directory",
            fix="name the directory of a token cache (data.cache_dir)",
            code="DATA_CACHE_DIRECTORY_MISSING",
        )
    # Read once: active runs add and remove entries at any time.
    names = sorted(directory.iterdir())
    staged = [path for path in names if is_staged_name(path.name) and not _is_foreign(path)]
    entries = [path for path in names if KEY.fullmatch(path.name) and not _is_foreign(path)]
    known = {*staged, *entries}
    unknown = tuple(path.name for path in names if path not in known and os.path.lexists(path))
    if unknown and not staged and not entries:
        raise DataError(
            f"{directory} is no token cache",
            why=f"nothing in it is an entry of one: {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}",
            fix="name the directory of a token cache; runs keep theirs in .token-cache beside them (data.cache_dir)",
            code="DATA_CACHE_NOT_A_CACHE",
        )
    looked_at = [*map(_entry_item, entries), *(_item(path, "unfinished") for path in staged)]
    items = [item for item in looked_at if item is not None]
    return CacheContent(tuple(sorted(items, key=lambda item: item.last_used, reverse=True)), unknown)


def check_items(items: Sequence[CacheItem]) -> list[CacheItem]:
    """Return the damaged ones of some entries, each of which is read to its last byte."""
    damaged = []
    for item in items:
        if item.state == "whole":
            try:
                open_entry(item.path, fully=True)
            except (DamagedEntryError, OSError) as error:
                # What was deleted meanwhile is not there, and not damaged.
                if (found := _item(item.path, "damaged", fault=str(error))) is not None:
                    damaged.append(found)
        elif item.state == "damaged":
            damaged.append(item)
    return damaged


def clear(directory: Path, used_before: datetime | None, storage: Storage) -> tuple[list[CacheItem], CacheContent]:
    """Delete entries, and what dead processes left; what is not known is never touched.

    Parameters
    ----------
    directory : Path
        The cache.
    used_before : datetime, optional
        Entries that were used since are kept; None: all go.
    storage : Storage
        The disk.

    Returns
    -------
    tuple
        What was deleted, and what is there still.

    Raises
    ------
    DataError
        As `look_into`, and if something cannot be deleted.
    """
    content = look_into(directory)
    chosen = [item for item in content.items if used_before is None or item.last_used < used_before]
    try:
        for item in chosen:
            if item.state != "unfinished":
                remove_entry(item.path, storage)
        if any(item.state == "unfinished" for item in chosen):
            remove_abandoned(directory, STAGED_ENTRY, storage)
    except OSError as error:
        raise DataError(
            f"{directory}: an entry cannot be deleted",
            why=f"{error.filename or directory}: {error.strerror}",
            fix="check the permissions of the directory",
            code="DATA_CACHE_NOT_DELETED",
        ) from error
    removed = [item for item in chosen if not item.path.exists()]
    return removed, CacheContent(tuple(item for item in content.items if item.path.exists()), content.unknown)


def _is_foreign(path: Path) -> bool:
    """Tell whether something that has a name of ours is no entry, finished or not; what has vanished is not foreign."""
    if not is_own_directory(path):
        return os.path.lexists(path)
    if is_staged_name(path.name):
        return False
    try:
        files = list(os.scandir(path))
    except FileNotFoundError:
        return False
    return not all(_OWN_FILE.fullmatch(item.name) and item.is_file(follow_symlinks=False) for item in files)


def _entry_item(path: Path) -> CacheItem | None:
    try:
        body = read_entry(path)["body"]
        splits = body["splits"].values()
        return _item(
            path,
            "whole",
            sources=tuple(str(file["name"]) for file in body["files"]),
            records=sum(split["account"]["records_kept"] for split in splits),
            tokens=sum(split["account"]["tokens_supervised"] + split["account"]["tokens_masked"] for split in splits),
        )
    except (DamagedEntryError, OSError, KeyError, TypeError, AttributeError) as error:
        return _item(path, "damaged", fault=str(error))


def _item(path: Path, state: State, **known: Any) -> CacheItem | None:
    """Return what is said of an entry; None if it has vanished."""
    used = None
    for place in (path / ENTRY_NAME, path):
        with contextlib.suppress(FileNotFoundError):
            used = used or place.stat().st_mtime
    if used is None:
        return None
    return CacheItem(path, state, bytes_in(path), datetime.fromtimestamp(used, UTC), **known)
