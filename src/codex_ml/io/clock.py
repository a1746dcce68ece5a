"""The time of now, and how a moment is written: one clock and one form for every record."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present moment with its time zone; the default clock."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC with microseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
