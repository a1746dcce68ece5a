"""A database from a medium is checked before it takes the place of the one that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from osv_audit.database import read_database, sha256_of
from osv_audit.errors import AuditError, DatabaseError
from osv_audit.importing import install, write_manifest


def test_install_archive_with_manifest_takes_its_place(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """The new one replaces the old one, and nothing else stays."""
    target = tmp_path / "database"
    first = archive_of(record())
    write_manifest(first)
    install(first, target, None, allow_older=False, now=now)
    second = archive_of(record("CODEX-2", modified="2026-11-23T00:00:00Z"))
    write_manifest(second)
    manifest = install(tmp_path / "medium", target, None, allow_older=False, now=now)
    assert [one.identifier for one in read_database(target).advisories] == ["CODEX-2"]
    assert manifest["newest_modified"] == "2026-11-23T00:00:00Z"
    assert manifest["sha256"] == sha256_of(second)
    assert sorted(path.name for path in target.iterdir()) == ["PyPI", "versions"]
    assert len(list((target / "versions").iterdir())) == 1


def test_install_directory_of_records_is_packed_alike_each_time(
    tmp_path: Path, record: Callable[..., Any], now: datetime
) -> None:
    """Packed into the layout that osv-scanner reads; the same records are the same bytes."""
    medium = tmp_path / "records"
    medium.mkdir()
    (medium / "a.json").write_text(json.dumps(record()))
    (medium / "b.yaml").write_text("id: CODEX-2\nmodified: 2026-11-21T00:00:00Z\n")
    digests = {install(medium, tmp_path / name, None, allow_older=False, now=now)["sha256"] for name in ("one", "two")}
    assert len(digests) == 1
    assert len(read_database(tmp_path / "one").advisories) == 2


def test_install_given_digest_of_other_bytes_changes_nothing(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """What came over is not what was fetched."""
    archive = archive_of(record())
    target = tmp_path / "database"
    with pytest.raises(DatabaseError, match="is expected"):
        install(archive, target, "0" * 64, allow_older=False, now=now)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("sha256", [None, "abc", "A" * 64])
def test_install_without_a_digest_is_refused(
    sha256: str | None, tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """Nothing would say that the medium holds what was fetched."""
    with pytest.raises(AuditError, match=r"digest|no SHA-256"):
        install(archive_of(record()), tmp_path / "database", sha256, allow_older=False, now=now)


def test_install_damaged_archive_keeps_the_old_one(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """Its digest is right, and it is still no database."""
    target = tmp_path / "database"
    good = archive_of(record())
    install(good, target, sha256_of(good), allow_older=False, now=now)
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"not a zip")
    with pytest.raises(DatabaseError):
        install(bad, target, sha256_of(bad), allow_older=False, now=now)
    assert read_database(target).advisories[0].identifier == "CODEX-1"


def test_install_older_database_needs_to_be_asked_for(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """An old medium in the drawer does not take away what is known."""
    target = tmp_path / "database"
    new = archive_of(record())
    install(new, target, sha256_of(new), allow_older=False, now=now)
    old = archive_of(record("CODEX-2", modified="2026-11-01T00:00:00Z"), place="old.zip")
    with pytest.raises(AuditError, match="--allow-older"):
        install(old, target, sha256_of(old), allow_older=False, now=now)
    install(old, target, sha256_of(old), allow_older=True, now=now)
    assert read_database(target).advisories[0].identifier == "CODEX-2"


def test_install_over_a_database_put_by_hand_takes_its_place(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """A directory PyPI that osv-scanner left."""
    archive_of(record(), place="database/PyPI/all.zip")
    new = archive_of(record("CODEX-2"))
    install(new, tmp_path / "database", sha256_of(new), allow_older=False, now=now)
    assert read_database(tmp_path / "database").advisories[0].identifier == "CODEX-2"
    assert len(list((tmp_path / "database" / "versions").iterdir())) == 1


def test_install_source_that_is_missing_is_an_error(tmp_path: Path, now: datetime) -> None:
    """The medium is not there."""
    with pytest.raises(DatabaseError, match="no database"):
        install(tmp_path / "stick", tmp_path / "database", None, allow_older=False, now=now)


def test_install_record_from_the_future_is_refused(
    tmp_path: Path, record: Callable[..., Any], archive_of: Any, now: datetime
) -> None:
    """Its age would say nothing."""
    archive = archive_of(record(modified="2027-11-22T00:00:00Z"))
    with pytest.raises(DatabaseError, match="future"):
        install(archive, tmp_path / "database", sha256_of(archive), allow_older=False, now=now)
