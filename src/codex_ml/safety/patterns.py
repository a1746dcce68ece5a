"""Regular expressions of RE2 over UTF-8: borders, what one must not be, and the wider form for the prefilter.

RE2 takes time linear in the text whatever the pattern (Cox, "Regular Expression Matching in the Wild", 2010), so that a
text cannot keep a policy busy. It has no look-around; what people use it for is `Borders` here.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import re2

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
# No word stands in two of these; a pattern that finds something in each looks for nothing in particular.
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
        If RE2 cannot take the expression; the message goes on from the name of the pattern.
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
        ``finds``: marks what it matches; ``permits``: whitens what it fits; ``surrounds``: stands beside.
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

    Borders are left out where an expression begins with a letter as it stands: they would be in every state, for every
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
        text += " (look-around is not there; borders, unless_after and unless_before stand for it)"
    return text
