"""Findings that somebody has judged and lets pass until a day: each with a package, a reason and an expiry."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from packaging.utils import canonicalize_name

from osv_audit.errors import AuditError

KEYS = {"id", "package", "reason", "expires"}
# A waiver is a decision of today; one for ten years is a hole.
MAX_DAYS = 366


@dataclass(frozen=True)
class Waiver:
    """One finding that may stay: the advisory (or an alias of it) for a package, why, and the last day."""

    identifier: str
    package: str
    reason: str
    expires: date

    def covers(self, package: str, identifiers: set[str]) -> bool:
        """Return whether it speaks of this finding."""
        return canonicalize_name(package) == self.package and self.identifier in identifiers


def read_waivers(file: Path, today: date) -> tuple[Waiver, ...]:
    """Return the waivers of a TOML file (``[[waiver]]``); without the file there are none.

    Raises
    ------
    AuditError
        If the file cannot be read, a waiver lacks a part, or its last day is too far away. One that is over is no
        error here: it covers nothing any more (`split_expired`).
    """
    if not file.exists():
        return ()
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AuditError(f"{file} cannot be read: {error}") from error
    entries = document.pop("waiver", [])
    if document or not isinstance(entries, list):
        raise AuditError(f"{file}: expected only tables [[waiver]], found {sorted(document) or type(entries).__name__}")
    return tuple(_parse(entry, f"{file}: waiver {number}", today) for number, entry in enumerate(entries, start=1))


def split_expired(waivers: tuple[Waiver, ...], today: date) -> tuple[tuple[Waiver, ...], tuple[Waiver, ...]]:
    """Return the waivers that hold today (their last day included), and those that are over."""
    holding = tuple(waiver for waiver in waivers if waiver.expires >= today)
    return holding, tuple(waiver for waiver in waivers if waiver.expires < today)


def _parse(entry: object, place: str, today: date) -> Waiver:
    if not isinstance(entry, dict) or set(entry) != KEYS:
        raise AuditError(f"{place}: expected exactly {', '.join(sorted(KEYS))}")
    texts = {key: entry[key] for key in ("id", "package", "reason")}
    if not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise AuditError(f"{place}: id, package and reason are texts, and none is empty")
    expires = entry["expires"]
    # A moment is a date too, by inheritance.
    if type(expires) is not date:
        raise AuditError(f"{place}: expires is a day, such as 2027-01-31, without quotes")
    if (expires - today).days > MAX_DAYS:
        raise AuditError(f"{place}: expires is more than {MAX_DAYS} days away: judge it again before")
    return Waiver(texts["id"].strip(), canonicalize_name(texts["package"].strip()), texts["reason"].strip(), expires)
