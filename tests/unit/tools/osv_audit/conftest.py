"""Planted OSV records, in the three forms a database may have."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_record(identifier: str = "CODEX-1", package: str = "planted", **changes: Any) -> Record:
    """Return a record of a package that is affected before 2.0; ``affected`` changes its one entry."""
    affected = {
        "package": {"name": package, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        **changes.pop("affected", {}),
    }
    return {
        "id": identifier,
        "modified": "2026-11-22T00:00:00Z",
        "summary": "planted",
        "affected": [affected],
        **changes,
    }


def write_archive(archive: Path, records: Mapping[str, Any]) -> Path:
    """Write records as all.zip."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, record in records.items():
            packed.writestr(name, record if isinstance(record, str) else json.dumps(record))
    return archive


@pytest.fixture
def record() -> Callable[..., Record]:
    """The maker of records."""
    return make_record


@pytest.fixture
def archive_of(tmp_path: Path) -> Callable[..., Path]:
    """Write records into a fresh archive and return its path."""

    def write(*records: Record, place: str = "medium/PyPI/all.zip") -> Path:
        return write_archive(tmp_path / place, {f"{one['id']}.json": one for one in records})

    return write


@pytest.fixture
def now() -> datetime:
    """A moment a day and a half after the planted records."""
    return NOW
