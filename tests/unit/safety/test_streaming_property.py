"""Streams of text: where the pieces are cut changes nothing, and nothing comes out that the policy forbids."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.safety.fragment_texts import MAIL_RULE, filters_of, texts_of

from codex_ml.safety.streaming import StreamFilter
from tiers import examples

pytestmark = pytest.mark.safety

FILTERS = filters_of(
    "streamed",
    MAIL_RULE,
    "{id: number, kind: pii, description: d, action: drop, patterns: ['[0-9]{6}'], borders: number}",
    "{id: words, kind: phrase, description: d, action: block, phrases: ['blue whale song', 'Straße', 'dog']}",
    "{id: key, kind: secret, description: d, patterns: ['<<KEY>>'], until: '<<END>>'}",
)
TEXTS = texts_of(
    [
        *("blue", "whale", "song", "BLUE", "Whale", "ｓｏｎｇ", "straße", "STRASSE", "dog", "\u200b", "e\u0301"),
        *("ann@host.test", "123456", "-123456", "<<KEY>>", "<<END>>", "x", "中文", "."),
    ],
    separators=[" ", "\n", "\n\n", "\r\n", "\t", ""],
    most=60,
)


def streamed(pieces: list[str], block_characters: int = 0) -> tuple[str, StreamFilter]:
    """Return what comes out of a stream, and the stream."""
    stream = StreamFilter(FILTERS, block_characters=block_characters)
    return "".join([*map(stream.feed, pieces), stream.close()]), stream


@given(text=TEXTS, cuts=st.lists(st.integers(0, 400), max_size=8), block=st.sampled_from([0, 7, 100]))
@examples(300)
def test_stream_any_cutting_gives_what_the_whole_text_gives(text: str, cuts: list[int], block: int) -> None:
    """Text, findings and action are those of the whole text, however it arrives and however often it is judged."""
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    out, stream = streamed([text[start:end] for start, end in pairwise(borders)], block)
    whole = FILTERS.apply(text)
    assert out == whole.text
    assert stream.action == whole.action
    assert [(f.rule_id, f.place.offset, f.length) for f in stream.take_findings()] == [
        (f.rule_id, f.start, f.length) for f in whole.findings
    ]


@given(text=TEXTS)
@examples(100)
def test_stream_places_are_those_of_the_text(text: str) -> None:
    """Line and column name the character at which the finding begins."""
    lines = text.split("\n")
    _, stream = streamed(list(text))
    for found in stream.take_findings():
        before = sum(len(line) + 1 for line in lines[: found.place.line - 1])
        assert before + found.place.column - 1 == found.place.offset
