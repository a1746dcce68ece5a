"""Patterns and phrases compiled with RE2, and sets of them that are matched in one pass."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, Literal

import re2

from codex_ml.safety.folding import IGNORABLE_CLASS

Borders = Literal["none", "word", "token", "number", "cell"]

# An escape sequence ends in a letter or digit that belongs to no word: "\nAKIA…" in quoted JSON, "%20AKIA…" in a URL.
_ESCAPE = r"\\[abefnrtv0]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[0-3][0-7]{2}|%[0-9A-Fa-f]{2}|\x1b\[[0-9;]*m"
_NUMBER_NEIGHBOUR = r"[^\pL\pN_.,+*/=$€£^#%~<>\-]"
# Emphasis of Markdown and brackets of a link may surround a number; behind an operand they are signs of a formula.
_EMPHASIS = r"(?:\*{1,3}|_{1,3}|~~|==)"
_OPENING = rf"(?:\A|[^0-9\pL)\]}}_*~]){_EMPHASIS}|(?:\A|[^0-9\pL)\]}}_])<"
_CLOSING = rf"{_EMPHASIS}(?:\z|[^0-9\pL(_*~=])|>(?:\z|[^0-9=])"
_BEFORE: dict[Borders, str] = {
    "none": "",
    # Letters of other scripts may touch ("密钥AKIA…" has no space), and so may what joins words ("old_AKIA…").
    "word": rf"(?:\A|[^A-Za-z0-9]|{_ESCAPE})",
    "token": rf"(?:\A|[^A-Za-z0-9_\-]|{_ESCAPE})",
    # Punctuation ends a sentence before a number; between digits, or behind a bracket of a formula, it belongs to it.
    "number": rf"(?:\A[.,\-]?|{_NUMBER_NEIGHBOUR}|=|[^0-9\pL)\]}}][.,\-]|>|#|\pL,|{_OPENING}|{_ESCAPE})",
    # A number that is known by itself may also have numbers as its neighbours in a row of cells; 0,45 is a fraction.
    "cell": rf"(?:\A[.,\-]?|{_NUMBER_NEIGHBOUR}|=|[^0-9\pL)\]}}][.,\-]|>|#|\pL,|[0-9]{{2}},|{_OPENING}|{_ESCAPE})",
}
_AFTER: dict[Borders, str] = {
    "none": "",
    "word": r"(?:\z|[^A-Za-z0-9])",
    "token": r"(?:\z|[^A-Za-z0-9_\-])",
    "number": rf"(?:\z|{_NUMBER_NEIGHBOUR}|[.,\-](?:\z|[^0-9\pL])|,\pL|<(?:/|br|\z)|/(?:\s|\z)|{_CLOSING})",
    "cell": rf"(?:\z|{_NUMBER_NEIGHBOUR}|[.,\-](?:\z|[^0-9\pL])|,|<(?:/|br|\z)|/(?:\s|\z)|{_CLOSING})",
}

# Short texts of every common character class: a match of one of them, or an empty match, is a match of anything.
_SINGLE_PROBES = ("a", "Z", "0", " ", "_", "é", "中", "я")
_EMPTY_PROBES = ("", *_SINGLE_PROBES, "a b", "@-.", "\n")
# No word occurs in two of these; a pattern that matches each of them is too general.
_SENTENCE_PROBES = (
    "The quick brown fox jumps over a lazy dog.",
    "Wie 12 Boxkaempfer Sylt durchqueren, weiss keiner!",
    "x = compute(y, z=3)  # returns None",
    "Portez ce vieux whisky au juge blond (1932)",
    "Jackdaws love my big sphinx; 99 bottles",
)
_LARGE_REPEAT = 12


class BytesPattern:
    """A compiled pattern that is applied to UTF-8.

    Attributes
    ----------
    source : str
        The expression with its borders, as given to RE2.
    value_group : int
        Group whose span counts.

    Raises
    ------
    ValueError
        If RE2 cannot take the expression; the message continues the name of the pattern.
    """

    def __init__(self, pattern: str, borders: Borders = "none") -> None:
        self.source = f"{_BEFORE[borders]}(?P<codex_span>{pattern}){_AFTER[borders]}"
        options = re2.Options()
        options.log_errors = False
        options.max_mem = 32 << 20
        try:
            # With a group around it, "a|b" between borders means what it says; alone it must be sound by itself.
            re2.compile(pattern.encode(), options)
            self._compiled: Any = re2.compile(self.source.encode(), options)
        except (re2.error, UnicodeEncodeError) as error:
            raise ValueError(f"is not a regular expression: {_explain(error)}") from error
        groups = self._compiled.groupindex
        self.value_group: int = groups.get(b"value", groups[b"codex_span"])

    def search(self, data: bytes, position: int) -> tuple[int, int, int, int] | None:
        """Return the next match from ``position`` on: its begin, start and end of its span, and its end."""
        match = self._compiled.search(data, position)
        if match is None:
            return None
        start, end = match.span(self.value_group)
        return match.start(), start, end, match.end()

    def fits(self, data: bytes) -> bool:
        """Tell whether the pattern fits the data from its first to its last byte."""
        return self._compiled.fullmatch(data) is not None

    def found_in(self, data: bytes) -> bool:
        """Tell whether the pattern fits somewhere."""
        return self._compiled.search(data) is not None


def require_usable(pattern: BytesPattern, use: Literal["finds", "permits", "surrounds"]) -> None:
    """Raise a `ValueError` when a pattern matches the empty string, or nothing in particular.

    Parameters
    ----------
    pattern : BytesPattern
        Without borders.
    use : str
        ``finds``: marks what it matches; ``permits``: whitens what it fits; ``surrounds``: precedes or follows a match.
    """
    if use == "surrounds":
        return
    if use == "permits":
        if all(pattern.fits(probe.encode()) for probe in (*_SINGLE_PROBES[:2], *_SENTENCE_PROBES)):
            raise ValueError("fits any text, and would permit everything")
        return
    for probe in _EMPTY_PROBES:
        found = pattern.search(probe.encode(), 0)
        if found is not None and found[1] == found[2]:
            raise ValueError("matches the empty string")
    if any(pattern.found_in(probe.encode()) for probe in _SINGLE_PROBES) or all(
        pattern.found_in(probe.encode()) for probe in _SENTENCE_PROBES
    ):
        raise ValueError("matches nothing in particular: it finds something in any text")


def widened(source: str, borders: Borders = "none") -> str:
    """Return an expression that matches wherever the given one does, and costs a set of patterns less.

    A bound such as ``{20,255}`` costs an automaton a state for each count and each start it could have had, which took
    a set of 80 patterns from 200 to 0.2 MB/s on random text. Lower bounds are cut and upper ones left out: every text
    that the one fits the other fits, since an expression holds no negation.

    Borders are omitted where an expression begins with a literal letter: they would be in every state, for every
    pattern. Where it begins with a class of characters, every character would begin a match without them.
    """

    def widen(match: re.Match[str]) -> str:
        if match["skipped"] is not None:
            return match["skipped"]
        low = int(match["low"])
        exact = match["comma"] is None
        high = None if match["high"] in {None, ""} else int(match["high"])
        if exact and low <= _LARGE_REPEAT:
            return match[0]
        if high is not None and high <= _LARGE_REPEAT:
            return match[0]
        return f"{{{min(low, _LARGE_REPEAT)},}}"

    wider = _REPEATS.sub(widen, source)
    return wider if _BEGINS_WITH_LETTERS.match(source) else f"{_BEFORE[borders]}(?:{wider})"


NUMBERS = "numbers"


def group_of(pattern: str, borders: Borders) -> str:
    """Return which patterns it goes with in one set.

    An automaton has a state for each combination of what its patterns are in the middle of. Patterns that are alike are
    in the middle of something in the same texts; all 200 of the packaged policy in one set are ten times slower on
    base64, and need ten times as long before their states are there, than four sets are.
    """
    if borders in {"number", "cell"}:
        return NUMBERS
    if _BEGINS_WITH_LETTERS.match(pattern):
        return "letters"
    return "words" if "(?i" in pattern[:_BEGINNING] else "others"


_BEGINNING = 40
_BEGINS_WITH_LETTERS = re.compile(r"(?:\(\?:)?[A-Za-z0-9]{2}")
# Classes, escapes and \Q…\E are passed over: braces in them are no repeats.
_REPEATS = re.compile(
    r"(?P<skipped>\\Q.*?(?:\\E|\Z)|\\[pPx]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])"
    r"|\{(?P<low>[0-9]+)(?P<comma>,(?P<high>[0-9]*))?\}",
    re.DOTALL,
)


def _explain(error: Exception) -> str:
    message = error.args[0] if error.args else error
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    if "invalid perl operator" in text:
        text += " (look-around is not there; use borders, unless_after and unless_before instead)"
    return text


# For the states of a set; what does not fit is computed again and again.
_MEMORY_BYTES = 64 << 20


class ExpressionSet:
    """Tells which of several expressions match somewhere in a text.

    Parameters
    ----------
    expressions : sequence of str
        Expressions of RE2.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        options = re2.Options()
        options.max_mem, options.log_errors = _MEMORY_BYTES, False
        self._count = len(expressions)
        self._nothing = [self._count]
        self._set: Any = re2.Set.SearchSet(options)
        # The empty expression, added last, matches everywhere: see `trusted`.
        for expression in (*expressions, ""):
            self._set.Add(expression.encode())
        self._set.Compile()

    def found_in(self, data: bytes) -> Sequence[int]:
        """Return the numbers of the expressions that match, in order; all of them where that cannot be told."""
        answer = self._set.Match(data)
        # Nearly every text: nothing but the last expression.
        if answer == self._nothing:
            return ()
        return trusted(answer, self._count)


@lru_cache(maxsize=64)
def shared_set(expressions: tuple[str, ...]) -> ExpressionSet:
    """Return the set of some expressions, compiled once a process: one job builds several filters of one policy."""
    return ExpressionSet(expressions)


def trusted(answer: Sequence[int] | None, count: int) -> Sequence[int]:
    """Return what an answer of a set says of its first ``count`` expressions.

    A set that runs out of memory answers that nothing matches. The expression behind the others matches everywhere, so
    where it is missing the answer says nothing, and every expression may match.
    """
    if answer is None or count not in answer:
        return range(count)
    return sorted(answer)[:-1] if len(answer) > 1 else ()


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
        # Any white space, also a line break, may separate the words of a phrase.
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
