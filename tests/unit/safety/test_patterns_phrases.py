"""Phrases in any script: folded for matching only, on borders, with places in the text as it was given."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.safety.patterns import PhraseFinder, fold
from tiers import examples

pytestmark = pytest.mark.safety


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("top secret", "ein ⟦ＴＯＰ　ｓｅｃｒｅｔ⟧ Plan"),
        ("office file", "the ⟦oﬃce ﬁle⟧."),
        ("café", "⟦cafe\u0301⟧ und ⟦CAFÉ⟧, Cafeteria"),
        ("cafe", "café, ⟦cafe⟧"),
        ("straße", "⟦STRASSE⟧, ⟦Straße⟧, Straßen"),
        ("ΟΔΟΣ", "η ⟦οδος⟧ και ⟦οδός⟧".replace("⟦οδός⟧", "οδός")),
        ("internal use", "⟦in\u00adter\u00adnal\u200b use⟧ only"),
        ("内部资料", "这是⟦内部资料⟧请勿外传"),
        ("ลับ", "เอกสาร⟦ลับ⟧มาก"),
        ("سري", "هذا ⟦سري⟧ جدا"),
        ("совершенно секретно", "— ⟦Совершенно\n  СЕКРЕТНО⟧!"),
        ("한글", "⟦\u1112\u1161\u11ab\u1100\u1173\u11af⟧ 문서"),
        ("Margaret O'Neill", "an ⟦Margaret O’Neill⟧ geschickt"),
        ("é", "⟦\u0065\u0301⟧ e"),
        ("½ price", "at ⟦½ price⟧ now, 1\u20442 price".replace("1\u20442 price", "⟦1\u20442 price⟧")),
    ],
)
def test_find_phrase_in_any_form_of_its_letters(phrase, text) -> None:
    """The place is that of the text as given, however its letters are composed."""
    plain = text.replace("⟦", "").replace("⟧", "")
    expected = []
    position = 0
    for part in text.split("⟦")[1:]:
        start = plain.index(part.split("⟧")[0], position)
        position = start + len(part.split("⟧")[0])
        expected.append((start, position))
    assert [span for _, span in PhraseFinder([phrase]).find(plain)] == expected


@examples(300)
@given(
    before=st.text(max_size=12),
    phrase=st.sampled_from(["geheim", "straße", "été", "top secret", "ﬁne"]),
    behind=st.text(max_size=12),
)
def test_find_planted_phrase_is_found_at_its_place_in_any_text(before, phrase, behind) -> None:
    """Between blanks a phrase is found wherever it stands, whatever letters stand around and however they fold."""
    text = f"{before} {phrase} {behind}"
    start = len(before) + 1
    spans = [span for _, span in PhraseFinder([phrase]).find(text)]
    assert any(first <= start and start + len(phrase) <= last for first, last in spans)
    assert all(0 <= first < last <= len(text) for first, last in spans)


@examples(200)
@given(text=st.text(max_size=30))
def test_fold_is_stable_and_knows_no_form(text) -> None:
    """Folding twice is folding once, and composed and decomposed text fold alike."""
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))


def test_find_thousands_of_phrases_take_one_pass() -> None:
    """Each phrase is found, and a text without any is told apart from one."""
    finder = PhraseFinder([f"word{number} here" for number in range(3000)])
    assert [number for number, _ in finder.find("x word7 here, word2999\nhere word3000 here")] == [7, 2999]
    assert finder.find("nothing of the kind") == []
