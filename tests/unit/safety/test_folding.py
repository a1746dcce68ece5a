"""Views of a text: which formatting they undo, and how their spans map to the original text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.safety.fragment_texts import MAIL_RULE, filters_of, texts_of

from codex_ml.safety.folding import views_of
from codex_ml.safety.matching import RuleMatch
from codex_ml.safety.policy import Rule
from codex_ml.safety.rendering import Markers, merge, render, to_original
from codex_ml.safety.streaming import StreamFilter
from tiers import examples

pytestmark = pytest.mark.safety
# A guard against quadratic work, not a measurement.
MOST_CPU_SECONDS = 60.0

FILTERS = filters_of(
    "folded",
    MAIL_RULE,
    "{id: number, kind: pii, description: d, patterns: ['[0-9]{6}'], borders: number}",
    "{id: words, kind: phrase, description: d, phrases: ['blue whale song']}",
)
TEXTS = texts_of(
    [
        *("%40", "%2540", "&#64;", "&amp;#64;", "\\u0040", "\\x40", "@", "\u00ad", "\u200b", "\uff20", "ann", "host"),
        *(".test", "%2Etest", "12", "\uff11\uff12", "\u0663", "3456", "\u00a0", "\u2011", "-", "blue", "whale", "song"),
        *("&nbsp;", "%20", "\\n", "x", "**", ",", "%", "&", "\\", "\u00e4", "1 2 3 4 5 6 7 8 9 0", "\ud83d"),
    ],
    separators=[" ", "\n", "\r\n"],
    most=30,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a%40b.de", "a@b.de"),
        ("a%2540b.de", "a@b.de"),
        ("a&#64;b.de a&#x40;b.de a&commat;b.de a&amp;#64;b.de", "a@b.de a@b.de a@b.de a@b.de"),
        ("a\\u0040b.de a\\x40b.de a\\u{40}b.de", "a@b.de a@b.de a@b.de"),
        ("1\u00ad2\u200b3\u20604", "1234"),
        ("1\u00a02\u202f3\u20113\u20134", "1 2 3-3-4"),
        ("\uff11\u0662\u0969\U0001d7d2", "1234"),
        ("caf%C3%A9 %ff 100%", "caf\u00e9 %ff 100%"),
    ],
)
def test_views_of_formatted_text_give_the_plain_one(text: str, plain: str) -> None:
    """Escapes, invisible characters, separators and digits of other scripts become the plain characters."""
    assert [view.text for view in views_of(text, text.encode()) if not view.is_joined] == [plain]


@pytest.mark.parametrize("text", ["plain prose\nof two lines", "caf\u00e9 \u00bd \u00b2", "a = b % c", "R&D", "C:"])
def test_views_of_ordinary_text_there_are_none(text: str) -> None:
    """Text without formatting has no further view; superscripts and fractions are no digits."""
    assert list(views_of(text, text.encode())) == []


@examples(300)
@given(text=TEXTS)
def test_view_spans_are_in_order_inside_the_text_and_not_empty(text: str) -> None:
    """Each character of a view maps to a nonempty span of the text, and the spans are in order."""
    for view in views_of(text, text.encode("utf-8", "replace")):
        last = 0
        for position in range(len(view.text)):
            start, end = view.to_original(position, position + 1)
            assert last <= start < end <= len(text)
            last = start
        if view.text:
            assert view.to_original(0, len(view.text))[1] <= len(text)


@examples(300)
@given(text=TEXTS)
def test_apply_folded_text_twice_changes_nothing_and_keeps_every_other_character(text: str) -> None:
    """Only the spans of findings are replaced; the rest of the text is unchanged."""
    once = FILTERS.apply(text)
    position = 0
    parts: list[str] = []
    for found in once.findings:
        parts += [text[position : found.start], f"[REDACTED:{found.rule_id}]"]
        position = found.start + found.length
    assert "".join([*parts, text[position:]]) == once.text
    assert FILTERS.apply(once.text).text == once.text


@examples(300)
@given(text=TEXTS, cut=st.integers(0, 200))
def test_stream_of_folded_text_gives_what_the_whole_text_gives(text: str, cut: int) -> None:
    """The result is the same when a piece ends inside an escape or between a letter and its combining mark."""
    stream = StreamFilter(FILTERS)
    cut = min(cut, len(text))
    assert stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.close() == FILTERS.apply(text).text


def test_to_original_many_findings_take_linear_time() -> None:
    """Forty thousand findings map to the text in one pass; a search through all of them for each took minutes."""
    rule = Rule(id="x", kind="regex", description="d", patterns=("xx",))
    found = [RuleMatch(rule, start, start + 2) for start in range(0, 120_000, 3)]
    rendered, pieces = render("xx " * 40_000, merge(found), Markers(["x"]))
    started = time.process_time()
    spans = [to_original(RuleMatch(rule, p.start, p.end), pieces) for p in pieces if p.is_marker]
    assert [(span.start, span.end) for span in spans] == [(m.start, m.end) for m in found]
    assert len(rendered) > 120_000
    assert time.process_time() - started < MOST_CPU_SECONDS


def test_views_of_many_wrapped_numbers_take_linear_time() -> None:
    """Half a million lines of numbers after one divided word are skipped in one pass; they took minutes."""
    text = "aaaa1234_x\nbbbb1234\n" + "12345678\n" * 500_000
    started = time.process_time()
    views = list(views_of(text, text.encode()))
    assert [view.text.startswith("aaaa1234_xbbbb1234\n") for view in views] == [True]
    assert time.process_time() - started < MOST_CPU_SECONDS
