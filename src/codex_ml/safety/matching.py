"""How a rule finds its spans in a text: regular expressions with a literal prefilter, phrases on word borders, Luhn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from codex_ml.safety.policy import Rule

Span = tuple[int, int]

# Scripts written without spaces: between their letters there is no word border to wait for (Unicode annex 29).
_UNSPACED_SCRIPTS = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")


def compile_rule(rule: Rule) -> Callable[[str], list[Span]]:
    """Return a function that gives the ``(start, end)`` character spans at which the rule applies to a text."""
    return _compile_phrases(rule.phrases) if rule.phrases else _compile_patterns(rule)


def passes_luhn(text: str) -> bool:
    """Tell whether the digits of a text pass the checksum of payment cards (ISO/IEC 7812-1, annex B)."""
    digits = [int(character) for character in text if character in "0123456789"]
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if position % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return bool(digits) and any(digits) and total % 10 == 0


def _compile_patterns(rule: Rule) -> Callable[[str], list[Span]]:
    patterns = [re.compile(pattern) for pattern in rule.patterns]
    allowed = [re.compile(pattern) for pattern in rule.allow]

    def find(text: str) -> list[Span]:
        # Most texts hold none of the literals, and a substring search costs a hundredth of a pattern.
        if rule.prefilter and not any(literal in text for literal in rule.prefilter):
            return []
        spans: list[Span] = []
        for pattern in patterns:
            group: str | int = "value" if "value" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                start, end = match.span(group)
                if start == end:
                    raise ValueError(f"rule {rule.id} matched an empty span")
                found = text[start:end]
                if rule.checksum == "luhn" and not passes_luhn(found):
                    continue
                if not any(permitted.fullmatch(found) for permitted in allowed):
                    spans.append((start, end))
        return spans

    return find


def _compile_phrases(phrases: Sequence[str]) -> Callable[[str], list[Span]]:
    searches: list[tuple[str, re.Pattern[str]]] = []
    for phrase in phrases:
        words = phrase.casefold().split()
        # Any white space, also a line break, may stand between the words of a phrase.
        searches.append((words[0], re.compile(r"\s+".join(re.escape(word) for word in words))))

    def find(text: str) -> list[Span]:
        folded = text.casefold()
        spans = [
            span
            for first_word, pattern in searches
            if first_word in folded
            for span in _matches_on_borders(pattern, folded)
        ]
        if spans and len(folded) != len(text):
            origin = _origin_of_folded(text)
            spans = [(origin[start], origin[end - 1] + 1) for start, end in spans]
        return spans

    return find


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


def _origin_of_folded(text: str) -> list[int]:
    """Return, for each character of the case-folded text, the index of the character it came from."""
    lengths = [len(character.casefold()) for character in text]
    starts = accumulate(lengths, initial=0)
    origin: list[int] = [0] * sum(lengths)
    for index, (start, length) in enumerate(zip(starts, lengths, strict=False)):
        origin[start : start + length] = [index] * length
    return origin
