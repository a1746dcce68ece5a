"""Brings a database from a medium into this machine: checked by digest, read whole, put in place in one step.

The installed database is ``PyPI``, a link to one directory of ``versions`` that holds ``all.zip`` and its manifest.
Turning the link is one rename: at every instant there is the old database or the new one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from osv_audit.database import ARCHIVE, HOW_TO_BRING_ONE, MANIFEST, MAX_AHEAD, Database, archive_at, read_database
from osv_audit.errors import AuditError, DatabaseError

VERSIONS = "versions"
# Zip stores no time before 1980; one fixed time makes the same records the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def describe(place: Path) -> dict[str, Any]:
    """Return the manifest of a database: digest of its archive, number of records, newest of them."""
    database = read_database(place)
    if database.sha256 is None:
        raise AuditError(f"{place} is a directory of records; a manifest describes an archive (all.zip)")
    return _manifest_of(database)


def write_manifest(place: Path) -> Path:
    """Write the manifest of an archive beside it, to go onto the medium with it, and return its path."""
    archive = archive_at(place)
    if archive is None:
        raise DatabaseError(f"there is no all.zip at {place}")
    manifest = archive.with_name(MANIFEST)
    # An old manifest would be compared with the new archive.
    manifest.unlink(missing_ok=True)
    _write_durably(manifest, json.dumps(describe(archive), indent=2).encode() + b"\n")
    return manifest


def pack(directory: Path, archive: Path) -> None:
    """Write a directory of JSON and YAML records as an archive; the same records give the same bytes."""
    read_database(directory)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(directory.rglob("*")):
            if file.suffix not in (".json", ".yaml", ".yml") or file.name == MANIFEST:
                continue
            text = file.read_text(encoding="utf-8")
            record = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
            name = file.relative_to(directory).with_suffix(".json").as_posix()
            member = zipfile.ZipInfo(name, _ZIP_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, json.dumps(record, sort_keys=True, default=_time_as_text))


def install(source: Path, target: Path, sha256: str | None, *, allow_older: bool, now: datetime) -> dict[str, Any]:
    """Check a database and make it the one of this machine; return its manifest.

    Parameters
    ----------
    source : Path
        An archive, a directory that holds one, or a directory of records.
    target : Path
        The directory of the installed database.
    sha256 : str or None
        The digest that the archive must have; without it, the manifest beside the archive must state one. A
        directory of records has no digest, and is taken as it is.
    allow_older : bool
        Whether a database may take the place of one that has newer records.
    now : datetime
        The present moment.

    Raises
    ------
    DatabaseError
        If the source is missing, is not what its digest says, or cannot be read; nothing was changed.
    AuditError
        If no digest was given, or it would take the place of a newer one.
    """
    target.mkdir(parents=True, exist_ok=True)
    archive = archive_at(source)
    if archive is None and not source.is_dir():
        raise DatabaseError(f"there is no database at {source}")
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target) as staging:
        staged = Path(staging) / ARCHIVE.name
        if archive is None:
            pack(source, staged)
        else:
            expected = _expected_digest(archive, sha256)
            shutil.copyfile(archive, staged)
        # The copy is what is checked, and what is installed: a medium may give other bytes the second time.
        database = read_database(staged)
        if archive is not None and database.sha256 != expected:
            raise DatabaseError(
                f"{archive} has the SHA-256 {database.sha256}, and {expected} is expected: copy it again"
            )
        if database.newest > now + MAX_AHEAD:
            raise DatabaseError(f"the newest record of {source} is from the future ({database.newest:%Y-%m-%d})")
        _refuse_older(database, target, allow_older=allow_older)
        manifest = {**_manifest_of(database), "installed": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        _put_in_place(staged, manifest, target)
    return manifest


def _expected_digest(archive: Path, sha256: str | None) -> str:
    if sha256 is None:
        manifest = archive.with_name(MANIFEST)
        if not manifest.is_file():
            raise AuditError(
                f"nothing says what the digest of {archive} must be: write {MANIFEST} where it was fetched "
                "(tools/pip_audit_wrapper.py manifest all.zip), or give --sha256"
            )
        try:
            sha256 = str(json.loads(manifest.read_text(encoding="utf-8"))["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatabaseError(f"{manifest} cannot be read: {error}; {HOW_TO_BRING_ONE}") from error
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise AuditError(f"{sha256!r} is no SHA-256: 64 hexadecimal digits in small letters are")
    return sha256


def _refuse_older(database: Database, target: Path, *, allow_older: bool) -> None:
    if allow_older or archive_at(target) is None:
        return
    try:
        installed = read_database(target)
    except DatabaseError:
        # What is there is of no use: whatever is good may take its place.
        return
    if database.newest < installed.newest:
        raise AuditError(
            f"the database at {target} has newer records ({installed.newest:%Y-%m-%d}) than this one "
            f"({database.newest:%Y-%m-%d}); --allow-older takes it nevertheless"
        )


def _put_in_place(staged: Path, manifest: dict[str, Any], target: Path) -> None:
    # Two installs of the same archive get directories of their own: neither writes into one that is in use.
    versions = target / VERSIONS
    versions.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{manifest['sha256'][:16]}-", dir=versions))
    directory.chmod(0o755)
    staged.replace(directory / ARCHIVE.name)
    _sync(directory / ARCHIVE.name)
    _write_durably(directory / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
    link = target / ARCHIVE.parent
    if link.is_dir() and not link.is_symlink():
        # Somebody put it there by hand, in the layout of osv-scanner; it is kept until the new one is whole.
        link.rename(versions / f"by-hand-{directory.name}")
    fresh = versions / f"{directory.name}.link"
    fresh.symlink_to(Path(VERSIONS) / directory.name, target_is_directory=True)
    fresh.replace(link)
    _sync(target)
    for other in versions.iterdir():
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)


def _manifest_of(database: Database) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "sha256": database.sha256,
        "records": len(database.advisories),
        "newest_modified": database.newest.isoformat().replace("+00:00", "Z"),
    }


def _write_durably(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    _sync(file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _time_as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat() + ("Z" if value.tzinfo is None else "")
    raise TypeError(f"a record holds a {type(value).__name__}")
