"""Which versions an OSV record speaks of, by the evaluation of the OSV schema with the order of PEP 440.

The algorithm is the one of the schema (section "Evaluation"). Where a record leaves a doubt, the version counts as
affected: a false alarm is waived with a reason, a silence is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.version import InvalidVersion, Version

from osv_audit.records import AffectedPackage, Event

# "0" stands for the beginning of time in an OSV range, before every version, development releases of 0 too.
BEGINNING = "0"
EVERYTHING = "*"
# At one and the same version: what was fixed may be introduced again there, and an end that is inclusive comes last.
_ORDER_AT_ONE_VERSION = {"fixed": 0, "introduced": 1, "last_affected": 2, "limit": 3}


def is_affected(version: str, package: AffectedPackage) -> bool:
    """Return whether a version of the package is listed, or inside one of its ranges.

    Parameters
    ----------
    version : str
        An installed version. Its local part (``2.13.0+cpu``) says how it was built and not what is in it, so it is
        judged with and without that part, and affected if either is.
    package : AffectedPackage
        What a record says of the package.

    Raises
    ------
    packaging.version.InvalidVersion
        If the version is none of PEP 440: nothing can be said of it.
    """
    installed = Version(version)
    candidates = {installed, Version(installed.public)}
    return any(_listed(one, package.versions) or _in_ranges(one, package.ranges) for one in candidates)


def _listed(version: Version, listed: Iterable[str]) -> bool:
    for text in listed:
        try:
            if Version(text) == version:
                return True
        except InvalidVersion:
            # Old releases have versions from before PEP 440; such a one can never be installed under another spelling.
            continue
    return False


def _in_ranges(version: Version, ranges: Iterable[tuple[Event, ...]]) -> bool:
    return any(_in_range(version, events) for events in ranges)


def _in_range(version: Version, events: tuple[Event, ...]) -> bool:
    try:
        limits = [event for event in events if event.kind == "limit"]
        if limits and not any(event.version == EVERYTHING or version < Version(event.version) for event in limits):
            return False
        ordered = sorted(events, key=_place)
        affected = False
        for event in ordered:
            if event.kind == "introduced" and (event.version == BEGINNING or version >= Version(event.version)):
                affected = True
            elif (event.kind == "fixed" and version >= Version(event.version)) or (
                event.kind == "last_affected" and version > Version(event.version)
            ):
                affected = False
    except InvalidVersion:
        # A border that cannot be compared: nobody can say that this version is outside.
        return True
    return affected


def _place(event: Event) -> tuple[bool, Version, int]:
    from_the_beginning = event.kind == "introduced" and event.version == BEGINNING
    endless = event.version == EVERYTHING and event.kind == "limit"
    version = Version("0") if from_the_beginning or endless else Version(event.version)
    return (not from_the_beginning, version, _ORDER_AT_ONE_VERSION[event.kind])
