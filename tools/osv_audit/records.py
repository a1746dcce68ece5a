"""OSV records as far as an audit needs them, read strictly: what cannot be understood is an error, not a clean package.

The format is the Open Source Vulnerability schema, version 1 (https://ossf.github.io/osv-schema/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from packaging.utils import canonicalize_name

ECOSYSTEM = "PyPI"
EVENT_KINDS = ("introduced", "fixed", "last_affected", "limit")
# GIT ranges name commits, which an installed package does not have; the schema asks for a list of versions beside them.
COMPARABLE_RANGES = ("ECOSYSTEM", "SEMVER")


class RecordError(ValueError):
    """A record that is not what the schema says."""


@dataclass(frozen=True)
class Event:
    """One border of a range: what it does, and at which version."""

    kind: str
    version: str


@dataclass(frozen=True)
class AffectedPackage:
    """The versions of one package that a record speaks of: those listed, and those inside a range."""

    name: str
    versions: tuple[str, ...]
    ranges: tuple[tuple[Event, ...], ...]


@dataclass(frozen=True)
class Advisory:
    """One OSV record; ``affected`` holds packages of the Python index only, under canonical names."""

    identifier: str
    aliases: tuple[str, ...]
    summary: str
    modified: datetime
    published: datetime | None
    withdrawn: datetime | None
    affected: tuple[AffectedPackage, ...]


def parse_advisory(record: object) -> Advisory:
    """Return the advisory that a parsed JSON or YAML document holds.

    Raises
    ------
    RecordError
        If it is no OSV record of version 1, or a part that decides is missing or of the wrong kind.
    """
    if not isinstance(record, Mapping):
        raise RecordError("is no object")
    schema_version = str(record.get("schema_version", "1.0.0"))
    if schema_version.partition(".")[0] != "1":
        raise RecordError(f"has schema version {schema_version}, and only 1 is understood")
    identifier = _text(record, "id")
    if not identifier:
        raise RecordError("has no id")
    withdrawn = record.get("withdrawn")
    published = record.get("published")
    return Advisory(
        identifier=identifier,
        aliases=_texts(record, "aliases"),
        # A line for people; pip-audit wants one line.
        summary=" ".join((_text(record, "summary") or _text(record, "details") or "no summary").split()),
        modified=parse_time(record.get("modified"), "modified"),
        published=None if published is None else parse_time(published, "published"),
        withdrawn=None if withdrawn is None else parse_time(withdrawn, "withdrawn"),
        affected=tuple(
            _parse_affected(entry) for entry in _objects(record, "affected") if _ecosystem_of(entry) == ECOSYSTEM
        ),
    )


def parse_time(value: object, field: str) -> datetime:
    """Return a moment of RFC 3339 as an aware time in UTC; YAML has parsed it already.

    Raises
    ------
    RecordError
        If it is absent, no time, or has no time zone.
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise RecordError(f"{field} is no time of RFC 3339") from error
    if moment.tzinfo is None:
        # PyYAML turns a time in UTC into one without a zone on some versions; JSON without a zone is an error.
        if not isinstance(value, datetime):
            raise RecordError(f"{field} has no time zone")
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def _ecosystem_of(entry: Mapping[str, Any]) -> str:
    package = entry.get("package")
    if package is None:
        # Records of source trees may name a repository only.
        return ""
    if not isinstance(package, Mapping):
        raise RecordError("affected.package is no object")
    return _text(package, "ecosystem").partition(":")[0]


def _parse_affected(entry: Mapping[str, Any]) -> AffectedPackage:
    name = _text(entry["package"], "name")
    if not name:
        raise RecordError("affected.package has no name")
    ranges = [_parse_range(one) for one in _objects(entry, "ranges") if _text(one, "type") in COMPARABLE_RANGES]
    return AffectedPackage(canonicalize_name(name), _texts(entry, "versions"), tuple(ranges))


def _parse_range(entry: Mapping[str, Any]) -> tuple[Event, ...]:
    events = []
    for one in _objects(entry, "events"):
        kinds = [kind for kind in EVENT_KINDS if kind in one]
        if len(one) != 1 or len(kinds) != 1:
            raise RecordError(f"an event of a range has {sorted(map(str, one))}, expected one of {EVENT_KINDS}")
        if not (version := _text(one, kinds[0])):
            raise RecordError(f"an event {kinds[0]} names no version")
        events.append(Event(kinds[0], version))
    if not any(event.kind == "introduced" for event in events):
        raise RecordError("a range has no event introduced")
    return tuple(events)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"{key} is no text")
    return value


def _texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = record.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RecordError(f"{key} is no list of texts")
    return tuple(values)


def _objects(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = record.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise RecordError(f"{key} is no list of objects")
    return values
