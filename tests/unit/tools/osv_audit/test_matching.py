"""Which versions are affected: the cases that the OSV schema and PEP 440 leave to be got wrong."""

from __future__ import annotations

import pytest
from packaging.version import InvalidVersion

from osv_audit.matching import is_affected
from osv_audit.records import AffectedPackage, Event


def package(*events: tuple[str, str], versions: tuple[str, ...] = ()) -> AffectedPackage:
    """Return a package with one range, or with none."""
    ranges = (tuple(Event(kind, version) for kind, version in events),) if events else ()
    return AffectedPackage("planted", versions, ranges)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("0.dev0", True),
        ("1.9.post1", True),
        ("2.0rc1", True),
        ("2.0", False),
        ("2.0+cpu", False),
        ("1.9+cpu", True),
        ("1!0.1", False),
        ("10.0", False),
    ],
)
def test_is_affected_range_from_the_beginning_ends_before_the_fix(version: str, affected: bool) -> None:
    """``introduced: 0`` is before every version, and ``fixed`` is not affected any more."""
    assert is_affected(version, package(("introduced", "0"), ("fixed", "2.0"))) is affected


@pytest.mark.parametrize(
    ("version", "affected"), [("1.5", True), ("1.5.0", True), ("1.5+cpu", True), ("1.5.post1", False)]
)
def test_is_affected_last_affected_is_inclusive(version: str, affected: bool) -> None:
    """The last affected version is affected, also as a local build."""
    assert is_affected(version, package(("introduced", "1.0"), ("last_affected", "1.5"))) is affected


@pytest.mark.parametrize(
    ("version", "affected"), [("1.0", True), ("1.5", False), ("2.0", True), ("2.5", False), ("0.9", False)]
)
def test_is_affected_events_in_disorder_are_sorted(version: str, affected: bool) -> None:
    """A range may hold several stretches, in any order."""
    events = (("fixed", "2.5"), ("introduced", "2.0"), ("fixed", "1.5"), ("introduced", "1.0"))
    assert is_affected(version, package(*events)) is affected


def test_is_affected_single_version_stretch_ends_with_it() -> None:
    """Introduced and last affected at one version is that version alone."""
    alone = package(("last_affected", "1.0"), ("introduced", "1.0"))
    assert is_affected("1.0", alone)
    assert not is_affected("1.1", alone)


def test_is_affected_fixed_and_introduced_at_one_version_is_affected() -> None:
    """In doubt, affected."""
    assert is_affected("2.0", package(("introduced", "1.0"), ("introduced", "2.0"), ("fixed", "2.0")))


@pytest.mark.parametrize(
    ("version", "affected"), [("1.0", True), ("1.0.0", True), ("v1.0", True), ("1.1", False), ("2004", False)]
)
def test_is_affected_listed_versions_are_compared_as_versions(version: str, affected: bool) -> None:
    """Not as texts; a listed version from before PEP 440 matches nothing."""
    assert is_affected(version, package(versions=("2004d-old", "1.0"))) is affected


def test_is_affected_listed_outside_the_range_is_affected() -> None:
    """Either suffices: real records need both."""
    assert is_affected("3.0", package(("introduced", "0"), ("fixed", "2.0"), versions=("3.0",)))


def test_is_affected_border_that_is_no_version_is_affected() -> None:
    """Nobody can say that a version is outside."""
    assert is_affected("3.0", package(("introduced", "0"), ("fixed", "the-next-one")))


@pytest.mark.parametrize(("limit", "affected"), [("2.0", False), ("4.0", True), ("*", True)])
def test_is_affected_limit_bounds_the_range(limit: str, affected: bool) -> None:
    """A version at or after every limit is outside."""
    assert is_affected("3.0", package(("introduced", "0"), ("limit", limit))) is affected


def test_is_affected_nothing_listed_and_no_range_is_not_affected() -> None:
    """The schema's answer."""
    assert not is_affected("1.0", package())


def test_is_affected_installed_version_that_is_none_raises() -> None:
    """It must not pass as clean."""
    with pytest.raises(InvalidVersion):
        is_affected("not-a-version", package(("introduced", "0")))
