"""Phrases: words matched in any case and any form of their letters, on word borders, in any script.

A text is compared in Unicode's form for caseless matching (NFKC, case folding, ignorable characters left out; Unicode
3.13 D146, "toNFKC_Casefold"), and what is found is marked in the text as it was given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import re2

from codex_ml.safety.expression_set import shared_set
from codex_ml.safety.folding import IGNORABLE_CLASS

Span = tuple[int, int]

# Scripts written without spaces: between their letters there is no word border to wait for (Unicode annex 29).
_UNSPACED_SCRIPTS = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_IGNORABLE = re.compile(f"[{IGNORABLE_CLASS}]")
# What word processors write for an apostrophe.
_APOSTROPHES = ("\u2018", "\u2019", "\u02bc")
_WHITE_SPACE = "[\\s\u0085\u1680\u2028\u2029]+"


class PhraseFinder:
    """Finds phrases in texts; one pass over the text for all of them.

    Parameters
    ----------
    phrases : sequence of str
        None of them empty.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        words = [fold(phrase).split() for phrase in phrases]
        # Any white space, also a line break, may stand between the words of a phrase.
        self._patterns = [re.compile(_WHITE_SPACE.join(map(re.escape, phrase))) for phrase in words]
        self._first_words = shared_set(tuple(re2.escape(phrase[0]) for phrase in words))

    def find(self, text: str) -> list[tuple[int, Span]]:
        """Return the number of the phrase and its span in characters, for each phrase and place.

        Of one phrase, spans do not overlap.
        """
        folded = text.lower() if text.isascii() else fold(text)
        found = [
            (number, span)
            for number in self._first_words.found_in(folded.encode("utf-8", "replace"))
            for span in _matches_on_borders(self._patterns[number], folded)
        ]
        if not found or text.isascii():
            return found
        origin = _origins(text)
        return [(number, (origin[start][0], origin[end - 1][1])) for number, (start, end) in found]

    def longest(self) -> int:
        """Return the most words a phrase has."""
        return max(pattern.pattern.count(_WHITE_SPACE) for pattern in self._patterns) + 1


def fold(text: str) -> str:
    """Return the form of a text in which letters that are one to a reader are equal."""
    text = _IGNORABLE.sub("", text)
    for apostrophe in _APOSTROPHES:
        text = text.replace(apostrophe, "'")
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Folding can bring forth what composes or decomposes again.
    return _IGNORABLE.sub("", unicodedata.normalize("NFKC", folded).casefold())


def _matches_on_borders(pattern: re.Pattern[str], folded: str) -> Iterator[Span]:
    match = pattern.search(folded)
    while match is not None:
        start, end = match.span()
        whole = _is_border(folded, start) and _is_border(folded, end)
        if whole:
            yield start, end
        match = pattern.search(folded, end if whole else start + 1)


def _is_border(text: str, position: int) -> bool:
    """Tell whether a word begins or ends between two characters."""
    if position in {0, len(text)}:
        return True
    before, after = text[position - 1], text[position]
    if unicodedata.category(after).startswith("M"):
        return False  # a combining mark belongs to the letter before it
    return not (_joins_words(before) and _joins_words(after))


def _joins_words(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "_"
    if not (character.isalnum() or unicodedata.category(character).startswith("M")):
        return False
    return not unicodedata.name(character, "").startswith(_UNSPACED_SCRIPTS)


def _origins(text: str) -> list[Span]:
    """Return, for each character of the folded text, the stretch of the text it came from.

    Characters fold together with the marks behind them: `e` and an accent may become one character.
    """
    origins: list[Span] = []
    start = 0
    for end in [*_cluster_starts(text), len(text)]:
        if end > start:
            origins.extend([(start, end)] * len(fold(text[start:end])))
            start = end
    return origins


def _cluster_starts(text: str) -> Iterator[int]:
    composing = _second_characters()
    for position, character in enumerate(text):
        if (
            character.isascii()
            or not (
                unicodedata.combining(character)
                or character in composing
                or _IGNORABLE.match(character)
                # Compatibility forms of marks and of jamo fold to what composes with the character before.
                or any(unicodedata.combining(part) or part in composing for part in fold(character)[:1])
            )
        ):
            yield position


@cache
def _second_characters() -> frozenset[str]:
    """Return the characters that may join with the one before into one, though they are no combining marks."""
    # Vowels and finals of Hangul compose by rule (Unicode 3.12).
    seconds = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    return frozenset(seconds)
