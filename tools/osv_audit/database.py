"""The vulnerability database on this machine: read whole, checked whole, or not believed.

It is ``PyPI/all.zip`` (one JSON record a member, the layout osv-scanner reads too) with a manifest beside it, a bare
``all.zip``, or a directory of JSON and YAML records.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from osv_audit.errors import DatabaseError, StaleDatabaseError
from osv_audit.records import Advisory, RecordError, parse_advisory, parse_time

ARCHIVE = Path("PyPI") / "all.zip"
MANIFEST = "manifest.json"
# The largest records of the real database have some 200 kB; the whole of it, some 100 MB.
MAX_RECORD_BYTES = 8 * 1024**2
MAX_DATABASE_BYTES = 4 * 1024**3
# A record may carry the clock of another machine; one from next week would keep an old database fresh for ever.
MAX_AHEAD = timedelta(days=1)
HOW_TO_BRING_ONE = (
    "bring a current PyPI/all.zip on a medium and run: tools/pip_audit_wrapper.py import SOURCE "
    "(docs/how-to/run-the-security-gates.md)"
)


@dataclass(frozen=True)
class AgeLimits:
    """From which age in days of the newest record on the database is warned of, and refused."""

    warn_days: float = 7
    fail_days: float = 30


@dataclass(frozen=True)
class Database:
    """Every advisory, and where it came from."""

    place: Path
    advisories: tuple[Advisory, ...]
    newest: datetime
    sha256: str | None
    has_manifest: bool = False

    def by_package(self) -> Mapping[str, tuple[Advisory, ...]]:
        """Return the advisories that were not withdrawn, by canonical name of the package."""
        index: dict[str, list[Advisory]] = {}
        for advisory in self.advisories:
            if advisory.withdrawn is None:
                for name in sorted({package.name for package in advisory.affected}):
                    index.setdefault(name, []).append(advisory)
        return {name: tuple(found) for name, found in index.items()}


def read_database(place: Path) -> Database:
    """Read every record of a database, whichever of the three forms it has.

    Raises
    ------
    DatabaseError
        If there is none, its digest is not the one of its manifest, a record cannot be read, or it holds none.
    """
    archive = archive_at(place)
    if archive is None:
        if not place.is_dir():
            raise DatabaseError(f"no vulnerability database at {place}; {HOW_TO_BRING_ONE}")
        return _assemble(place, _records_of_directory(place), sha256=None)
    try:
        digest = sha256_of(archive)
    except OSError as error:
        raise DatabaseError(f"{archive} cannot be read: {error.strerror}") from error
    database = _assemble(archive, _records_of_archive(archive), digest)
    manifest = archive.with_name(MANIFEST)
    if not manifest.is_file():
        return database
    _check_manifest(manifest, database)
    return replace(database, has_manifest=True)


def archive_at(place: Path) -> Path | None:
    """Return the archive a place stands for: itself, or the one in its layout; None for a directory of records."""
    if place.is_file():
        return place
    found = [place / name for name in (ARCHIVE, ARCHIVE.name) if (place / name).is_file()]
    return found[0] if found else None


def check_age(database: Database, now: datetime, limits: AgeLimits) -> tuple[float, bool]:
    """Return the age in days of the newest record, and whether it is to be warned of.

    Raises
    ------
    StaleDatabaseError
        If it is older than allowed.
    DatabaseError
        If it is from the future: this machine's clock or the record is wrong, and an age says nothing.
    """
    if database.newest > now + MAX_AHEAD:
        raise DatabaseError(
            f"the newest record is from the future ({database.newest:%Y-%m-%d}, today is {now:%Y-%m-%d}): "
            "set the clock of this machine, or bring another database"
        )
    age_days = max(0.0, (now - database.newest) / timedelta(days=1))
    if age_days > limits.fail_days:
        raise StaleDatabaseError(
            f"the newest record is {age_days:.1f} days old, and {limits.fail_days:g} are allowed: what became known "
            f"since is not in it; {HOW_TO_BRING_ONE}"
        )
    return age_days, age_days > limits.warn_days


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_manifest(manifest: Path, database: Database) -> None:
    try:
        stated = json.loads(manifest.read_text(encoding="utf-8"))
        newest = parse_time(stated["newest_modified"], "newest_modified")
        differing = [
            name
            for name, is_same in (
                ("sha256", stated["sha256"] == database.sha256),
                ("records", stated["records"] == len(database.advisories)),
                ("newest_modified", newest == database.newest),
            )
            if not is_same
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatabaseError(f"{manifest} cannot be read: {error}; {HOW_TO_BRING_ONE}") from error
    if differing:
        raise DatabaseError(
            f"{database.place} is not what {MANIFEST} says ({', '.join(differing)}); {HOW_TO_BRING_ONE}"
        )


def _assemble(place: Path, records: Iterator[tuple[str, object]], sha256: str | None) -> Database:
    advisories: dict[str, Advisory] = {}
    for name, record in records:
        try:
            advisory = parse_advisory(record)
        except RecordError as error:
            raise DatabaseError(f"{place}: record {name} {error}; {HOW_TO_BRING_ONE}") from error
        if advisory.identifier in advisories:
            raise DatabaseError(f"{place}: {advisory.identifier} is there twice; {HOW_TO_BRING_ONE}")
        advisories[advisory.identifier] = advisory
    if not advisories:
        raise DatabaseError(f"{place} holds no record; {HOW_TO_BRING_ONE}")
    newest = max((one.modified for one in advisories.values()), default=datetime.min.replace(tzinfo=UTC))
    if not any(one.affected for one in advisories.values()):
        raise DatabaseError(f"{place} holds no record of a Python package; {HOW_TO_BRING_ONE}")
    return Database(place, tuple(advisories.values()), newest, sha256)


def _records_of_archive(archive: Path) -> Iterator[tuple[str, object]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            total_bytes = sum(member.file_size for member in members)
            if total_bytes > MAX_DATABASE_BYTES or any(member.file_size > MAX_RECORD_BYTES for member in members):
                raise DatabaseError(f"{archive} unpacks to more than a database of advisories can have")
            for member in members:
                # Reading checks the CRC of each member.
                yield member.filename, json.loads(opened.read(member))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DatabaseError(f"{archive} cannot be read as a database: {error}; {HOW_TO_BRING_ONE}") from error


def _records_of_directory(directory: Path) -> Iterator[tuple[str, object]]:
    for file in sorted(directory.rglob("*")):
        if file.suffix not in (".json", ".yaml", ".yml") or file.name == MANIFEST or not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            yield file.relative_to(directory).as_posix(), _parse_text(text, file.suffix)
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise DatabaseError(f"{file} cannot be read: {' '.join(str(error).split())}") from error


def _parse_text(text: str, suffix: str) -> object:
    return json.loads(text) if suffix == ".json" else yaml.safe_load(text)
