"""The manifest of a checkpoint: SHA-256 and size of every file, written last, checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage, bytes_digest, file_digest, json_bytes
from codex_ml.io.untrusted import kind_of, read_json

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
# Digest of all that the manifest says beside it, in the order in which it is said.
SELF_DIGEST = "manifest_digest"
# Formats that can run code when they are loaded; their presence alone makes a directory unfit.
PICKLE_SUFFIXES = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"),
    *(".joblib", ".dill", ".npy", ".npz", ".h5", ".keras"),
)
# A model of a thousand shards has fewer; a directory of a million files would keep its reader busy for hours.
MAX_FILES = 10_000


def write_manifest(directory: Path, details: dict[str, Any], storage: Storage) -> None:
    """Digest every file of a directory and write the manifest as its last file.

    Parameters
    ----------
    directory : Path
        The staged checkpoint; its files are complete.
    details : dict
        What else the manifest says (kind, step, digests of base and data); JSON values.
    storage : Storage
        Writes and fsyncs.
    """
    files = {
        name: {"sha256": file_digest(directory / name), "bytes": (directory / name).stat().st_size}
        for name in _files(directory)
    }
    manifest = {"manifest_version": MANIFEST_VERSION, **details, "files": files}
    storage.write_bytes(directory / MANIFEST_NAME, json_bytes({**manifest, SELF_DIGEST: _digest_of(manifest)}))


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint without checking the files it names.

    Raises
    ------
    CheckpointError
        If it is absent or damaged: then the checkpoint never became whole.
    """
    path = directory / MANIFEST_NAME
    try:
        manifest = read_json(path, follow_links=False)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{directory} is not a whole checkpoint",
            why=f"it has no {MANIFEST_NAME}",
            fix="name another checkpoint, or the run directory to take its best",
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged", why=str(error), fix="name another checkpoint of the run") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path} is damaged", why="it lists no files", fix="name another checkpoint of the run")
    if manifest.get("manifest_version") != MANIFEST_VERSION:
        raise CheckpointError(
            f"{path} has version {manifest.get('manifest_version')!r}",
            why=f"this codex-ml reads version {MANIFEST_VERSION}",
            fix="use the codex-ml version that wrote it",
        )
    dependencies = [name for name in manifest["files"] if not _is_inside(name)]
    if dependencies:
        raise CheckpointError(
            f"{path} names files outside its checkpoint",
            why=f"{dependencies[0]!r} is no relative path below it",
            fix="name another checkpoint; codex-ml writes no such manifest",
        )
    return manifest


def verify_checkpoint(directory: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest and return the manifest.

    Raises
    ------
    CheckpointError
        If a file is missing, changed, not named by the manifest, no regular file (a link, a pipe, a device), or of a
        format that can run code. Nothing is opened then but what the manifest names and the size says may be it.
    """
    manifest = read_manifest(directory)
    kinds, named = dict(_entries(directory)), manifest["files"]
    present = {name for name, kind in kinds.items() if kind is None} - {MANIFEST_NAME}
    faults = [f"{name} is {kind}" for name, kind in sorted(kinds.items()) if kind is not None]
    faults += [f"{name} is a pickle format, which is never read" for name in sorted(present) if is_pickle(name)]
    faults += [f"{name} is missing" for name in sorted(set(named) - set(kinds))]
    faults += [f"{name} is not in the manifest" for name in sorted(present - set(named))]
    faults += [
        fault for name in sorted(present & set(named)) if (fault := _content_fault(directory / name, named[name]))
    ]
    # The digests vouch for the files; this one for the rest, such as which base model the adapter belongs to.
    own = _digest_of({key: value for key, value in manifest.items() if key != SELF_DIGEST})
    if own is None or manifest.get(SELF_DIGEST) != own:
        faults.append(f"{MANIFEST_NAME} differs from its own checksum")
    if faults:
        raise CheckpointError(
            f"checkpoint {directory} fails its verification",
            why="; ".join(faults),
            fix="name another checkpoint of the run; this one must not be used",
        )
    return manifest


def _digest_of(manifest: dict[str, Any]) -> str | None:
    """Return the digest of what a manifest says; None where it holds what JSON written by us never does."""
    try:
        return bytes_digest(json_bytes(manifest))
    except ValueError:
        return None


def is_pickle(name: str) -> bool:
    """Tell whether a file's name says that it is of a format that can run code when it is loaded."""
    return name.lower().endswith(PICKLE_SUFFIXES)


def _files(directory: Path) -> list[str]:
    """Return the relative names of all files of a checkpoint but its manifest; a tokenizer may bring a directory."""
    return sorted(name for name, _ in _entries(directory) if name != MANIFEST_NAME)


def _entries(directory: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the relative name of everything below a directory but directories, and what it is; None: a regular file.

    Links are named and never followed, so that nothing outside is looked at.

    Raises
    ------
    CheckpointError
        If there are more files than any checkpoint has.
    """
    count = 0
    for parent, directories, files in os.walk(directory):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        for name in (*files, *links):
            count += 1
            if count > MAX_FILES:
                raise CheckpointError(
                    f"{directory} is no checkpoint",
                    why=f"it holds more than {MAX_FILES} files",
                    fix="name a checkpoint that codex-ml wrote",
                )
            path = Path(parent) / name
            yield path.relative_to(directory).as_posix(), kind_of(path.lstat().st_mode)


def _is_inside(name: str) -> bool:
    """Tell whether a name in a manifest is that of a file below it."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def _content_fault(file: Path, entry: Any) -> str | None:
    """Return what is wrong with the content of a file; a disk that cannot read it is a fault like a changed byte."""
    if not isinstance(entry, dict):
        return f"{file.name} has no checksum in the manifest"
    try:
        # A file of another size is not read: it may be one that seems to hold terabytes.
        digest = file_digest(file) if file.stat().st_size == entry.get("bytes") else None
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror or error})"
    return None if digest is not None and digest == entry.get("sha256") else f"{file.name} differs from its checksum"
