"""Patterns of RE2: borders, what they must not be, and the wider form for a set."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.safety.patterns import BytesPattern, require_usable, widened
from tiers import examples

pytestmark = pytest.mark.safety


@pytest.mark.parametrize(
    ("borders", "text", "found"),
    [
        ("none", "xab12y", True),
        ("word", "ab12", True),
        ("word", "(ab12)", True),
        ("word", "密钥ab12。", True),
        ("word", r"\nab12\n", True),
        ("word", r"\u0022ab12\u0022", True),
        ("word", "%20ab12%20", True),
        ("word", "\x1b[31mab12\x1b[0m", True),
        ("word", "xab12", False),
        ("word", "ab12x", False),
        ("word", "_ab12_", True),
        ("token", "_ab12", False),
        ("word", "-ab12-", True),
        ("token", "-ab12", False),
        ("token", "ab12-", False),
        ("token", "=ab12", True),
        ("number", "=ab12.", True),
        ("number", "3.ab12", False),
        ("number", ". ab12, and", True),
        ("number", "ab12.5", False),
        ("number", "5*ab12", False),
        ("number", "ab12*5", False),
        ("number", "$ab12", False),
    ],
)
def test_search_borders_decide_what_may_stand_beside(borders, text, found) -> None:
    """Each kind of border, at letters, punctuation, escapes and operators."""
    assert (BytesPattern("ab12", borders).search(text.encode(), 0) is not None) is found


def test_search_neighbours_share_the_border_between_them() -> None:
    """The character behind one match is the one before the next."""
    pattern = BytesPattern("ab[0-9]", "word")
    first = pattern.search(b"ab1 ab2", 0)
    assert first is not None
    assert first[1:3] == (0, 3)
    second = pattern.search(b"ab1 ab2", 3)
    assert second is not None
    assert second[1:3] == (4, 7)


@pytest.mark.parametrize(
    "pattern", ["a*", "x?", r"\b", "", "(?:ab)?", ".", r"\w+", "[a-z ]{3,}", r"[\s\S]", r"\d+", "é|q", "[^x]"]
)
def test_require_usable_pattern_of_anything_is_refused(pattern) -> None:
    """What matches nothing, one character of any kind, or every sentence."""
    with pytest.raises(ValueError, match="matches"):
        require_usable(BytesPattern(pattern), "finds")


@pytest.mark.parametrize("pattern", ["卐", "ab+", r"\bthe\b", "[0-9]{6}", r"(?i)secret\s+word", "x[a-z]z"])
def test_require_usable_pattern_of_something_is_taken(pattern) -> None:
    """One rare character is enough, and so is one common word."""
    require_usable(BytesPattern(pattern), "finds")


@pytest.mark.parametrize(
    ("source", "wider"),
    [
        ("a{2,3}", "a{2,3}"),
        ("a{20,255}", "a{12,}"),
        ("a{36}", "a{12,}"),
        ("a{2,255}", "a{2,}"),
        ("a{13,}", "a{12,}"),
        (r"a\{20,30}", r"a\{20,30}"),
        ("[{20,30}]{40}", "[{20,30}]{12,}"),
        (r"\x{10ffff}{40}", r"\x{10ffff}{12,}"),
        (r"\pL{40}\p{Greek}", r"\pL{12,}\p{Greek}"),
        (r"\Q{20,30}\E{40}", r"\Q{20,30}\E{12,}"),
        ("[]{40}]{40}", "[]{40}]{12,}"),
    ],
)
def test_widened_large_counts_lose_their_bounds(source, wider) -> None:
    """Counts in classes, escapes and quotations are no counts."""
    assert widened("xy" + source) == "xy" + wider


_ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", "(?:ab|c)", r"\d", "(?i:a)"])
_COUNTS = st.sampled_from(["", "?", "*", "{3}", "{14}", "{2,14}", "{13,15}", "{13,}"])


@examples(200)
@given(
    parts=st.lists(st.tuples(_ATOMS, _COUNTS), min_size=1, max_size=4),
    borders=st.sampled_from(["none", "word", "token", "number"]),
    text=st.text(alphabet="aabbcA1 -.", max_size=60),
)
def test_widened_matches_wherever_the_pattern_does(parts, borders, text) -> None:
    """A set may say perhaps too often, and must never say no to a text in which the pattern finds something."""
    source = "".join(atom + count for atom, count in parts)
    found = BytesPattern(source, borders).search(text.encode(), 0)
    if found is not None:
        assert re2.compile(widened(source, borders).encode()).search(text.encode()) is not None
