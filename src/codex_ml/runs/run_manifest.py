"""The manifest of a whole run: written last, so that a later change of any of its files is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codex_ml.io.atomic import PARTIAL_SUFFIX, Storage, file_digest
from codex_ml.io.untrusted import read_json
from codex_ml.runs.layout import RunLayout, RunRecord
from codex_ml.runs.manifest import MANIFEST_NAME
from codex_ml.runs.verification import Check, compare

RUN_MANIFEST_NAME = "run_manifest.json"
RUN_MANIFEST_VERSION = 1
_FILES = f"{RUN_MANIFEST_NAME}.files"


def write_run_manifest(layout: RunLayout, record: RunRecord, storage: Storage) -> None:
    """Digest the files of a run that has ended, and write them down.

    Checkpoints are named by their own manifests, which name their files. Evaluations are not part of it: they are made
    later, and each again.
    """
    files = {
        name: {"sha256": file_digest(layout.directory / name), "bytes": (layout.directory / name).stat().st_size}
        for name in _covered(layout)
    }
    storage.write_json(
        manifest_path(layout),
        {"manifest_version": RUN_MANIFEST_VERSION, "run_id": record.run_id, "status": record.status, "files": files},
    )


def remove_run_manifest(layout: RunLayout, storage: Storage) -> None:
    """Delete the manifest of a run that resumes, because it no longer matches."""
    if manifest_path(layout).exists():
        storage.unlink(manifest_path(layout))


def manifest_path(layout: RunLayout) -> Path:
    """Return the path of the manifest of a run."""
    return layout.directory / RUN_MANIFEST_NAME


def check_run_manifest(layout: RunLayout, record: RunRecord) -> list[Check]:
    """Hold every file that the manifest of a run names against it, and name what came later."""
    try:
        manifest = read_json(manifest_path(layout), follow_links=False)
        named = dict(manifest["files"])
        known = manifest["manifest_version"] == RUN_MANIFEST_VERSION
    except FileNotFoundError:
        return [_absent(record)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Check(RUN_MANIFEST_NAME, "differs", note=f"it is damaged: {error}")]
    if not known:
        return [Check(RUN_MANIFEST_NAME, "unchecked", note="another version of codex-ml wrote it")]
    checks = [_check_entry(layout.directory, name, named[name]) for name in sorted(named)]
    checks += [
        compare(f"{RUN_MANIFEST_NAME}.{key}", manifest.get(key), value)
        for key, value in (("run_id", record.run_id), ("status", record.status))
    ]
    later = sorted(set(_covered(layout)) - set(named))
    return checks + [Check(f"{_FILES}.{name}", "noted", note="not in the manifest: it came later") for name in later]


def _absent(record: RunRecord) -> Check:
    """Say what a missing manifest means: a run that ended in order had one, one whose process died could not."""
    if record.ended is not None:
        why = "a run writes one last: it was killed in that instant, made before there were any, or it was taken away"
        return Check(RUN_MANIFEST_NAME, "missing", note=why)
    why = "the process of the run died before it could write one: its files are held against each other only"
    return Check(RUN_MANIFEST_NAME, "noted", note=why)


def _check_entry(directory: Path, name: str, entry: Any) -> Check:
    recorded = entry.get("sha256") if isinstance(entry, dict) else None
    key, file = f"{_FILES}.{name}", directory / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return Check(key, "differs", note="the name leads out of the run")
    if not file.is_file() or file.is_symlink():
        return Check(key, "missing", recorded)
    try:
        return compare(key, recorded, file_digest(file))
    except OSError as error:
        return Check(key, "differs", recorded, note=f"it cannot be read: {error.strerror or error}")


def _covered(layout: RunLayout) -> list[str]:
    """Return the relative names of the files that a manifest names: all but locks, leftovers and evaluations."""
    files = [path for path in layout.directory.iterdir() if path != layout.lock and path != manifest_path(layout)]
    if layout.checkpoints.is_dir():
        files += [path for path in layout.checkpoints.iterdir() if path.is_file()]
        files += layout.checkpoints.rglob(MANIFEST_NAME)
    names = (
        path.relative_to(layout.directory).as_posix()
        for path in files
        if path.is_file() and not path.is_symlink() and not path.name.endswith(PARTIAL_SUFFIX)
    )
    return sorted(name for name in names if "/.staging-" not in name)
