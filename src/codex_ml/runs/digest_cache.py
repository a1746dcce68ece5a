"""Remembers the digests of large files beside the runs, so that base weights are not read twice for every run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codex_ml.io.atomic import Storage, file_digest
from codex_ml.io.untrusted import read_json

CACHE_NAME = ".digests.json"
CACHE_VERSION = 1
# Reading a smaller file again costs less than a tenth of a second, and most runs then leave no such file behind.
SMALLEST_BYTES = 32 << 20
# A file may change twice within one tick of its filesystem's clock; so one that changed just now is not remembered.
_SETTLED_SECONDS = 2.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True)
class Fingerprint:
    """What tells, without reading it, that a file is the one whose digest is known."""

    bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Return the fingerprint of a file; of what it leads to where it is a link."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class DigestCache:
    """Gives the SHA-256 of files; of those it has seen unchanged before, without reading them.

    A file counts as unchanged while path, size, modification time, change time and inode are the same. The change time
    cannot be set back by a program that restores the modification time. A verification reads the files again
    (`codex_ml.io.atomic.file_digest`).

    Parameters
    ----------
    file : Path
        Where digests are kept, such as ``runs/.digests.json`` (mode 0600). Paths in it are relative to its directory.
    digest : callable
        Computes the digest of a file.
    clock : callable
        Seconds since the epoch.
    smallest_bytes : int
        Smaller files are read every time.
    """

    def __init__(
        self,
        file: Path,
        digest: Callable[[Path], str] = file_digest,
        clock: Callable[[], float] = time.time,
        smallest_bytes: int = SMALLEST_BYTES,
    ) -> None:
        self._file = file
        self._digest = digest
        self._clock = clock
        self._smallest_bytes = smallest_bytes
        self._known = self._read()
        self._new: dict[str, dict[str, Any]] = {}

    def __call__(self, path: Path) -> str:
        """Return the digest of a file.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        before = Fingerprint.of(path)
        if before.bytes < self._smallest_bytes:
            return self._digest(path)
        key = os.path.relpath(path.absolute(), self._file.parent.absolute())
        known = self._new.get(key) or self._known.get(key)
        if known is not None and {**asdict(before), "digest": known["digest"]} == known:
            return str(known["digest"])
        digest = self._digest(path)
        changed = max(before.mtime_ns, before.ctime_ns) / 1e9
        if Fingerprint.of(path) == before and self._clock() - changed > _SETTLED_SECONDS:
            self._new[key] = {**asdict(before), "digest": digest}
        return digest

    def save(self, storage: Storage) -> None:
        """Write what was learnt, if anything was and the directory is there; digests of vanished files are dropped."""
        directory = self._file.parent
        if not self._new or not directory.is_dir():
            return
        # Read again: another run may have written since.
        digests = {**self._read(), **self._new}
        present = {key: entry for key, entry in sorted(digests.items()) if (directory / key).is_file()}
        try:
            storage.write_json(self._file, {"version": CACHE_VERSION, "digests": present})
        except OSError:
            # Nothing but time is lost: the next run reads the files again. The run itself has written beside it.
            return
        self._known, self._new = present, {}

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the file; none where it is absent, damaged, or open to other users' hands."""
        try:
            status = self._file.stat()
            if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE:
                return {}
            content = read_json(self._file, follow_links=False)
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("version") != CACHE_VERSION:
            return {}
        digests = content.get("digests")
        if not isinstance(digests, dict):
            return {}
        return {key: entry for key, entry in digests.items() if _is_entry(entry)}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("digest"), str) and bool(_DIGEST.fullmatch(entry["digest"]))
