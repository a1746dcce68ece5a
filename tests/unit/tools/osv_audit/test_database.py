"""A database is read whole and checked whole, or it is not believed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from osv_audit.database import AgeLimits, Database, check_age, read_database
from osv_audit.errors import DatabaseError, StaleDatabaseError
from osv_audit.importing import write_manifest


def test_read_database_three_forms_hold_the_same(tmp_path: Path, record: Callable[..., Any], archive_of: Any) -> None:
    """The layout, the bare archive, and directories of JSON and YAML."""
    archive = archive_of(record())
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "a.json").write_text(json.dumps(record()))
    yaml = tmp_path / "yaml"
    yaml.mkdir()
    # JSON is YAML but for the time, which YAML reads as one.
    (yaml / "a.yaml").write_text(
        "id: CODEX-1\nmodified: 2026-11-22T00:00:00Z\nsummary: planted\naffected:\n"
        "- package: {name: planted, ecosystem: PyPI}\n"
        "  ranges:\n  - type: ECOSYSTEM\n    events: [{introduced: '0'}, {fixed: '2.0'}]\n"
    )
    forms = [read_database(place) for place in (tmp_path / "medium", archive, loose, yaml)]
    assert len({form.advisories for form in forms}) == 1
    assert len({form.newest for form in forms}) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda archive: archive.unlink(),
        lambda archive: archive.write_bytes(archive.read_bytes()[:-40]),
        lambda archive: archive.write_bytes(b""),
        lambda archive: archive.write_bytes(archive.read_bytes().replace(b"CODEX-1", b"CODEX-2", 1)),
        lambda archive: archive.with_name("manifest.json").write_text("{}"),
        lambda archive: archive.with_name("manifest.json").write_text("not JSON"),
    ],
    ids=["gone", "cut off", "empty", "a changed byte", "manifest without fields", "manifest unreadable"],
)
def test_read_database_damaged_is_an_error(
    spoil: Callable[[Path], object], tmp_path: Path, record: Callable[..., Any], archive_of: Any
) -> None:
    """None of these may count as a database with fewer records."""
    archive = archive_of(record())
    write_manifest(archive)
    assert read_database(archive.parent.parent).has_manifest
    spoil(archive)
    with pytest.raises(DatabaseError):
        read_database(tmp_path / "medium" / "PyPI" / "all.zip")


def test_read_database_other_archive_than_of_the_manifest_is_an_error(
    record: Callable[..., Any], archive_of: Any
) -> None:
    """A good archive beside the manifest of another one."""
    write_manifest(archive_of(record()))
    archive = archive_of(record(), record("CODEX-2"))
    with pytest.raises(DatabaseError, match="sha256, records"):
        read_database(archive)


@pytest.mark.parametrize(
    "content",
    [{}, {"a.json": "{"}, {"a.json": {"id": "X"}}, {"a.json": {"id": "X", "modified": "2026-11-22T00:00:00Z"}}],
)
def test_read_database_without_a_usable_record_is_an_error(content: dict[str, Any], tmp_path: Path) -> None:
    """An empty archive, a broken record, one without a time, and none of a Python package."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for name, one in content.items():
            packed.writestr(name, one if isinstance(one, str) else json.dumps(one))
    with pytest.raises(DatabaseError):
        read_database(tmp_path / "all.zip")


def test_read_database_same_record_twice_is_an_error(tmp_path: Path, record: Callable[..., Any]) -> None:
    """Which of the two would count?"""
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(record()))
    with pytest.raises(DatabaseError, match="twice"):
        read_database(tmp_path)


def test_by_package_withdrawn_record_is_left_out(record: Callable[..., Any], archive_of: Any) -> None:
    """It was taken back by those who wrote it."""
    archive = archive_of(record(withdrawn="2026-11-22T00:00:00Z"), record("CODEX-2"))
    assert [one.identifier for one in read_database(archive).by_package()["planted"]] == ["CODEX-2"]


@pytest.mark.parametrize(("age_days", "to_warn"), [(0.5, False), (6.9, False), (7.1, True), (29.9, True)])
def test_check_age_within_limits_warns_from_a_week(age_days: float, to_warn: bool, now: datetime) -> None:
    """Warned of after 7 days, and used."""
    database = Database(Path(), (), now - timedelta(days=age_days), None)
    assert check_age(database, now, AgeLimits())[1] is to_warn


def test_check_age_forty_days_is_refused(now: datetime) -> None:
    """It cannot say that a package is clean."""
    with pytest.raises(StaleDatabaseError, match="are allowed"):
        check_age(Database(Path(), (), now - timedelta(days=40), None), now, AgeLimits())


def test_check_age_from_the_future_is_refused(now: datetime) -> None:
    """One record of next year would keep the database fresh for ever."""
    with pytest.raises(DatabaseError, match="future"):
        check_age(Database(Path(), (), now + timedelta(days=2), None), now, AgeLimits())
