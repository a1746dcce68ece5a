"""A finished directory put in the place of the one before it, as a whole, and what that changed, file by file."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from codex_ml.errors import DataError
from codex_ml.storage import PARTIAL_SUFFIX, Storage, file_digest
from codex_ml.untrusted import UntrustedFileError, read_json

MANIFEST_NAME = "prepare.json"
Change = Literal["created", "updated", "skipped", "removed"]


@contextmanager
def only_one_at_work(target: Path, storage: Storage) -> Iterator[None]:
    """Hold a lock on the directory above ``target``, which leaves no file behind; whoever comes second waits."""
    missing = [parent for parent in target.parents if not parent.exists()]
    storage.make_directory(target.parent)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
        for parent in missing:
            # Made for the target alone; where that has come to be, it is not empty.
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def digests_below(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory but the manifest itself, by its path there."""
    files = (path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME)
    return {path.relative_to(directory).as_posix(): file_digest(path) for path in sorted(files)}


def what_is_there(target: Path) -> Mapping[str, Any] | None:
    """Return the manifest of a directory that an earlier preparation made; None where nothing is there.

    Raises
    ------
    DataError
        If something else is there, or a file in it is no longer as it was written: it would be lost.
    """
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        manifest = read_json(target / MANIFEST_NAME) if target.is_dir() else None
    except (UntrustedFileError, OSError, ValueError):
        manifest = None
    outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or not isinstance(outputs, dict):
        raise DataError(
            f"{target} exists and was not made by data prepare",
            why="what others made is never written over",
            fix="name another directory: --out DIR",
        )
    found = digests_below(target)
    changed = sorted(name for name in found.keys() | outputs.keys() if found.get(name) != outputs.get(name))
    if changed:
        raise DataError(
            f"{target}: {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''} changed since it was prepared",
            why="a change that was made by hand is never written over",
            fix="name another directory: --out DIR, or move this one away",
        )
    return manifest


def recover(target: Path, storage: Storage) -> None:
    """Put back, or remove, what a preparation that was killed between its two renames left beside ``target``."""
    old = _set_aside(target)
    if not old.is_dir():
        return
    if os.path.lexists(target):
        storage.remove_tree(old)
    else:
        storage.replace(old, target)
    storage.fsync_directory(target.parent)


def publish(made: Path, target: Path, before: Mapping[str, Any] | None, storage: Storage) -> dict[str, Change]:
    """Force a finished directory to the disk and put it in the place of the one before it.

    Between two renames nothing lies at ``target``; at no moment does a mixture of old and new files. The manifest in
    ``made`` is written already.

    Returns
    -------
    dict
        What became of each file: created, updated, skipped (the same bytes as before) or removed.
    """
    for path in sorted(made.rglob("*"), reverse=True):
        (storage.fsync_directory if path.is_dir() else storage.fsync_file)(path)
    storage.fsync_directory(made)
    old = _set_aside(target)
    if before is not None:
        storage.replace(target, old)
    storage.replace(made, target)
    storage.fsync_directory(target.parent)
    if old.is_dir():
        storage.remove_tree(old)
    manifest = json.loads((target / MANIFEST_NAME).read_bytes())
    return changes(manifest["outputs"], {} if before is None else before["outputs"])


def changes(outputs: Mapping[str, str], before: Mapping[str, str]) -> dict[str, Change]:
    """Return what became of each file, from the digests now and before."""
    found: dict[str, Change] = {name: "removed" for name in sorted(before) if name not in outputs}
    for name, digest in outputs.items():
        found[name] = "created" if name not in before else "skipped" if before[name] == digest else "updated"
    return found


def _set_aside(target: Path) -> Path:
    # One name for all processes: whoever holds the lock finds what another has left.
    return target.with_name(f".{target.name}.before{PARTIAL_SUFFIX}")
