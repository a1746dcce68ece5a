"""The manifest of a checkpoint: SHA-256 and size of every file, written last, checked before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.storage import Storage, file_digest, json_bytes

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1
# Formats that can run code when they are loaded; their presence alone makes a directory unfit.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


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
    storage.write_bytes(
        directory / MANIFEST_NAME, json_bytes({"manifest_version": MANIFEST_VERSION, **details, "files": files})
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint without checking the files it names.

    Raises
    ------
    CheckpointError
        If it is absent or damaged: then the checkpoint never became whole.
    """
    path = directory / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text("utf-8"))
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
    return manifest


def verify_checkpoint(directory: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest and return the manifest.

    Raises
    ------
    CheckpointError
        If a file is missing, changed, not named by the manifest, or of a format that can run code.
    """
    manifest = read_manifest(directory)
    present, named = set(_files(directory)), manifest["files"]
    faults = [f"{name} is a pickle format, which is never read" for name in sorted(present) if _is_pickle(name)]
    faults += [f"{name} is missing" for name in sorted(set(named) - present)]
    faults += [f"{name} is not in the manifest" for name in sorted(present - set(named))]
    faults += [
        fault for name in sorted(present & set(named)) if (fault := _content_fault(directory / name, named[name]))
    ]
    if faults:
        raise CheckpointError(
            f"checkpoint {directory} fails its verification",
            why="; ".join(faults),
            fix="name another checkpoint of the run; this one must not be used",
        )
    return manifest


def _files(directory: Path) -> list[str]:
    """Return the relative names of all files of a checkpoint but its manifest; a tokenizer may bring a directory."""
    names = (file.relative_to(directory).as_posix() for file in directory.rglob("*") if not file.is_dir())
    return sorted(name for name in names if name != MANIFEST_NAME)


def _content_fault(file: Path, entry: Any) -> str | None:
    """Return what is wrong with the content of a file; a disk that cannot read it is a fault like a changed byte."""
    if not isinstance(entry, dict):
        return f"{file.name} has no checksum in the manifest"
    try:
        digest = file_digest(file)
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror or error})"
    return None if digest == entry.get("sha256") else f"{file.name} differs from its checksum"


def _is_pickle(name: str) -> bool:
    return name.endswith(PICKLE_SUFFIXES)
