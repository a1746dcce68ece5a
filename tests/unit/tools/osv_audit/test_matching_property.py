"""The evaluation of ranges held against plain comparisons and specifiers of `packaging`."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from osv_audit.matching import is_affected
from osv_audit.records import AffectedPackage, Event

FINAL = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))


@st.composite
def any_version(draw: st.DrawFn) -> str:
    """A version with any of the parts of PEP 440."""
    text = draw(st.sampled_from(["", "", "1!"])) + draw(FINAL)
    text += draw(st.sampled_from(["", "a1", "b2", "rc1"]))
    text += draw(st.sampled_from(["", ".post1"]))
    return text + draw(st.sampled_from(["", ".dev1"]))


@st.composite
def stretches(draw: st.DrawFn, versions: st.SearchStrategy[str]) -> list[tuple[str, str, str]]:
    """Stretches apart from each other: where each begins, the kind of its end, and where that is."""
    borders = sorted({Version(text) for text in draw(st.lists(versions, min_size=2, max_size=6))})
    kinds = st.sampled_from(["fixed", "last_affected"])
    return [(str(start), draw(kinds), str(end)) for start, end in zip(borders[::2], borders[1::2], strict=False)]


def as_package(found: list[tuple[str, str, str]], seed: int) -> AffectedPackage:
    """Return one range of all stretches, its events in any order."""
    events = [Event("introduced", start) for start, _, _ in found] + [Event(kind, end) for _, kind, end in found]
    random.Random(seed).shuffle(events)
    return AffectedPackage("planted", (), (tuple(events),) if events else ())


@given(stretches(any_version()), any_version(), st.integers(0, 99))
def test_is_affected_any_stretches_as_by_comparison(found: list[tuple[str, str, str]], text: str, seed: int) -> None:
    """A version is affected exactly where a comparison by PEP 440 says that it is inside."""
    version = Version(text)

    def inside(start: str, kind: str, end: str) -> bool:
        # "0" is the beginning of time in OSV, and not the version 0.
        after_start = start == "0" or version >= Version(start)
        return after_start and (version < Version(end) if kind == "fixed" else version <= Version(end))

    assert is_affected(text, as_package(found, seed)) is any(inside(*one) for one in found)


@given(stretches(FINAL), FINAL, st.integers(0, 99))
def test_is_affected_final_releases_as_by_specifiers(found: list[tuple[str, str, str]], text: str, seed: int) -> None:
    """For final releases the specifiers of pip say the same."""
    specifiers = [SpecifierSet(f">={start},{'<' if kind == 'fixed' else '<='}{end}") for start, kind, end in found]
    assert is_affected(text, as_package(found, seed)) is any(text in one for one in specifiers)


@given(st.lists(any_version(), max_size=5), any_version())
def test_is_affected_listed_versions_as_by_equality(listed: list[str], text: str) -> None:
    """A list is a set of versions, whichever way they are spelt."""
    expected = Version(text) in {Version(one) for one in listed}
    assert is_affected(text, AffectedPackage("planted", tuple(listed), ())) is expected


@given(stretches(any_version()), any_version(), st.sampled_from(["cpu", "cu128", "1.2"]), st.integers(0, 99))
def test_is_affected_local_build_never_hides(
    found: list[tuple[str, str, str]], text: str, local: str, seed: int
) -> None:
    """A local build is affected wherever the release it was built from is."""
    package = as_package(found, seed)
    assert is_affected(f"{text}+{local}", package) or not is_affected(text, package)
