"""OSV records are read strictly: what cannot be understood is an error."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from osv_audit.records import Event, RecordError, parse_advisory


def test_parse_advisory_ordinary_record_keeps_what_decides(record: Callable[..., Any]) -> None:
    """Name made canonical, borders in order, times in UTC, aliases."""
    advisory = parse_advisory(record(package="Plan_Ted.x", aliases=["CVE-1"], modified="2026-11-22T02:00:00+02:00"))
    assert advisory.affected[0].name == "plan-ted-x"
    assert advisory.affected[0].ranges == ((Event("introduced", "0"), Event("fixed", "2.0")),)
    assert advisory.modified == datetime(2026, 11, 22, tzinfo=UTC)
    assert advisory.aliases == ("CVE-1",)
    assert advisory.withdrawn is None


@pytest.mark.parametrize("moment", ["2026-11-22T00:00:00.123456789Z", "2026-11-22T00:00:00.5Z", "2026-11-22T00:00:00Z"])
def test_parse_advisory_fractions_of_a_second_are_read(moment: str, record: Callable[..., Any]) -> None:
    """Real records have nine digits, one, or none."""
    assert parse_advisory(record(modified=moment)).modified.replace(microsecond=0) == datetime(2026, 11, 22, tzinfo=UTC)


def test_parse_advisory_other_ecosystem_is_left_out(record: Callable[..., Any]) -> None:
    """A package of the same name elsewhere is another package."""
    other = record(affected={"package": {"name": "planted", "ecosystem": "npm"}})
    assert parse_advisory(other).affected == ()


def test_parse_advisory_git_range_is_left_out(record: Callable[..., Any]) -> None:
    """Commits are no versions."""
    git = record(affected={"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}], "versions": ["1.0"]})
    assert parse_advisory(git).affected[0].ranges == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": 3},
        {"modified": None},
        {"modified": "yesterday"},
        {"modified": "2026-11-22T00:00:00"},
        {"withdrawn": "never"},
        {"schema_version": "2.0.0"},
        {"aliases": "CVE-1"},
        {"affected": {"versions": [1.0]}},
        {"affected": {"package": {"ecosystem": "PyPI"}}},
        {"affected": {"package": "planted"}},
        {"affected": {"ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "2.0"}]}]}},
        {"affected": {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0", "fixed": "2.0"}]}]}},
        {"affected": {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": ""}]}]}},
        {"affected": {"ranges": {"type": "ECOSYSTEM"}}},
    ],
    ids=str,
)
def test_parse_advisory_broken_part_is_an_error(changes: dict[str, Any], record: Callable[..., Any]) -> None:
    """None of these may count as a record that affects nothing."""
    with pytest.raises(RecordError):
        parse_advisory(record(**changes))


def test_parse_advisory_no_object_is_an_error() -> None:
    """A list or a text is no record."""
    with pytest.raises(RecordError, match="no object"):
        parse_advisory(["CODEX-1"])
