r"""Views of a text in which formatting is undone, with the way back to the text as it was given.

A value is written in many ways: with escapes (``%40``, ``&#64;``, ``\u0040``), invisible characters, no-break spaces,
other hyphens and digits, letter by letter, or over two lines. Every rule reads the text itself and these views, so
that a rule has to know the plain form only. Sources: RFC 3986 2.1, HTML 13.5, RFC 8259 7, Unicode annexes 15 and 44.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from html.entities import html5
from typing import Any

import re2

Edit = tuple[int, int, str]

# Joiners, soft hyphens, marks of direction, selectors of variants: invisible, and no part of a word.
IGNORABLE_CLASS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
# Lines through and below characters, and the frame of a key.
_OVERLAYS = "\u0332-\u0338\u20e3"
_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_DASHES = "\u058a\u1806\u2010-\u2015\u2043\u2212\ufe58\ufe63"
_LINE_ENDS = "\u0085\u2028\u2029"
# Other forms of letters, digits and signs of ASCII: full-width, small, mathematical.
_FORMS = "\u2024\ufe52\ufe55\ufe5f\ufe62\ufe68\ufe6b\uff01-\uff5e\U0001d400-\U0001d7ff"
_REMOVED = re.compile(f"[{IGNORABLE_CLASS}{_OVERLAYS}]")
_FOLDED_CLASS = IGNORABLE_CLASS + _OVERLAYS + _BLANKS + _DASHES + _LINE_ENDS + _FORMS
_PERCENT = "%[0-9A-Fa-f]{2}"
_ENTITY = "&(?:#[0-9]{1,7};|#[0-9]{2,3}|#[xX][0-9A-Fa-f]{1,6};|[A-Za-z]{2,8};)"
_ESCAPE = r"""\\(?:u\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}|U000[0-9A-Fa-f]{5}|x[0-9A-Fa-f]{2}|[nrt"'/\\])"""
_CHANGED = re.compile(
    rf"(?P<percent>(?:{_PERCENT})+)|(?P<entity>{_ENTITY})|(?P<escape>(?:{_ESCAPE})+)"
    rf"|(?P<sign>[{_FOLDED_CLASS}]|(?![0-9])\d)"
)
_ONE_ESCAPE = re.compile(_ESCAPE)
_LETTER_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
# Ten single characters that one and the same sign keeps apart.
_SINGLE = "[A-Za-z0-9@.+_]"
_SPACED = "|".join(rf"{_SINGLE}(?:{mark}{_SINGLE}){{9,}}" for mark in (" ", "-"))
_SPACED_RUN = re.compile(rf"(?<![A-Za-z0-9])(?:{_SPACED})(?![A-Za-z0-9])")
# A number, or a long word that holds a digit, that continues in the next line; lines of numbers alone are a table.
_NEXT_LINE = r"[ \t]?(?:\r\n?|\n)(?:[ \t>|*]{0,16}|[ \t]{0,8}#{1,2}[ \t]{1,4})"
_NUMBER_GAP = re.compile(rf"(?<=[0-9+-])(?P<gap>{_NEXT_LINE})(?=(?P<tail>[0-9][0-9 .-]{{0,40}}))")
# A label with a letter comes before the number, in the same line.
_NUMBER_HEAD = re.compile(r"[^\W\d][^\n]{0,80}?(?<![0-9A-Za-z])(?P<head>[A-Z]{0,2}[0-9+](?:[0-9 .-]{0,40}[0-9])?-?)\Z")
_LONGEST_LABELLED_HEAD = 130
# A digit or low line in the word: prose has none.
_WORD_HEAD, _WORD_TAIL = "[A-Za-z0-9+/=-]*[0-9_][A-Za-z0-9_+/=-]{3,120}", "[A-Za-z0-9_+/=-]{4}"
_WRAPPED_WORD = re.compile(rf"(?P<head>(?<![A-Za-z0-9_+/=-]){_WORD_HEAD})(?P<gap>{_NEXT_LINE})(?={_WORD_TAIL})")
_MOST_ROUNDS = 3
_WHOLE_LINE_CHARACTERS = 40


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(expression.encode(), options)


# One pass over the bytes tells whether a text has anything that folds, and one whether anything joins: most have not.
_HAS_FOLDED = _compiled(rf"{_PERCENT}|{_ENTITY}|{_ESCAPE}|[{_FOLDED_CLASS}]|[^0-9\P{{Nd}}]")
_HAS_FOLDED_OF_ASCII = _compiled(rf"{_PERCENT}|{_ENTITY}|{_ESCAPE}")
_HAS_JOINED = _compiled(rf"{_SPACED}|[0-9]-?{_NEXT_LINE}[0-9]|[0-9_][A-Za-z0-9_+/=-]{{3,}}{_NEXT_LINE}{_WORD_TAIL}")


class View:
    """A text after edits, and the way back from its spans to those of the text before.

    Parameters
    ----------
    text : str
        Before the edits.
    edits : sequence of (start, end, replacement)
        In order and apart.
    parent : View, optional
        The view whose text this is.
    is_joined : bool
        Whether the edits join what the text keeps apart, so that only a finding across an edit counts.
    """

    def __init__(
        self, text: str, edits: Sequence[Edit], parent: View | None = None, *, is_joined: bool = False
    ) -> None:
        self._parent, self.is_joined = parent, is_joined
        self._edits = edits
        # Of each edit, where its replacement begins and ends in the view.
        self._starts: list[int] = []
        self._ends: list[int] = []
        parts: list[str] = []
        position = length = 0
        for start, end, replacement in edits:
            parts += (text[position:start], replacement)
            length += start - position
            self._starts.append(length)
            length += len(replacement)
            self._ends.append(length)
            position = end
        parts.append(text[position:])
        self.text = "".join(parts)

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the text as it was given of a span of the view; it is not empty."""
        span = self._before(start)[0], self._before(end - 1)[1]
        return span if self._parent is None else self._parent.to_original(*span)

    def crosses_edit(self, start: int, end: int) -> bool:
        """Tell whether an edit lies inside a span of the view."""
        index = bisect_left(self._ends, start)
        while index < len(self._ends) and self._ends[index] <= start:
            index += 1
        return index < len(self._starts) and self._starts[index] < end

    def _before(self, position: int) -> tuple[int, int]:
        """Return the stretch that one character of the view came from."""
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return position, position + 1
        start, end, _ = self._edits[index]
        if position < self._ends[index]:
            return start, end
        origin = position - self._ends[index] + end
        return origin, origin + 1


def has_views(text: str, data: bytes) -> bool:
    """Tell quickly whether a text may have views; nearly every text has none.

    Parameters
    ----------
    text : str
        As it was given.
    data : bytes
        The same in UTF-8.
    """
    return not _is_plain(text) or _HAS_JOINED.search(data) is not None


def _is_plain(text: str) -> bool:
    return text.isascii() and "%" not in text and "&" not in text and "\\" not in text


def views_of(text: str, data: bytes) -> Iterator[View]:
    """Yield the views of a text that differ from it: folded, and with its separate parts joined; see `has_views`."""
    view: View | None = None
    if not _is_plain(text):
        has_folded = _HAS_FOLDED_OF_ASCII if text.isascii() else _HAS_FOLDED
        for _ in range(_MOST_ROUNDS):
            if has_folded.search(data) is None:
                break
            current = text if view is None else view.text
            edits = list(_foldings(current))
            if not edits:
                break
            view = View(current, edits, view)
            data, has_folded = view.text.encode("utf-8", "replace"), _HAS_FOLDED
        if view is not None:
            yield view
    if _HAS_JOINED.search(data) is not None:
        current = text if view is None else view.text
        for edits in (_joined_numbers(current), _joined_words(current)):
            if edits:
                yield View(current, edits, view, is_joined=True)


def _foldings(text: str) -> Iterator[Edit]:
    for match in _CHANGED.finditer(text):
        if match["sign"] is not None:
            yield match.start(), match.end(), _plain(match[0])
        elif match["percent"] is not None:
            yield from _decoded_percents(match[0], match.start())
        elif match["escape"] is not None:
            yield from _decoded_escapes(match[0], match.start())
        else:
            character = _of_entity(match[0][1:].rstrip(";"))
            if character is not None:
                yield match.start(), match.end(), _plain(character)


def _plain(text: str) -> str:
    """Return the plain form of what folds: nothing, a blank, a hyphen, a line end, or characters of ASCII."""
    if len(text) != 1:
        return text
    if text.isascii():
        return text
    if _REMOVED.match(text):
        return ""
    if text.isdecimal():
        return str(unicodedata.decimal(text))
    category = unicodedata.category(text)
    if category == "Zs":
        return " "
    if category == "Pd" or text in "\u2043\u2212":
        return "-"
    if text in _LINE_ENDS:
        return "\n"
    return unicodedata.normalize("NFKC", text) if _CHANGED.match(text) else text


def _decoded_percents(run: str, offset: int) -> Iterator[Edit]:
    data = bytes.fromhex(run.replace("%", ""))
    position = 0
    while position < len(data):
        for length in (1, 2, 3, 4):
            character = data[position : position + length].decode("utf-8", "ignore")
            if character:
                if _may_stand(character):
                    yield offset + 3 * position, offset + 3 * (position + length), _plain(character)
                break
        else:
            length = 1
        position += length


def _decoded_escapes(run: str, offset: int) -> Iterator[Edit]:
    lead: tuple[int, int] | None = None
    for match in _ONE_ESCAPE.finditer(run):
        body = match[0][1:]
        code = ord(_LETTER_ESCAPES.get(body, body)) if len(body) == 1 else int(body[1:].strip("{}"), 16)
        start, end = offset + match.start(), offset + match.end()
        if 0xD800 <= code < 0xDC00:
            lead = (start, code)
            continue
        if 0xDC00 <= code < 0xE000 and lead is not None:
            start, code = lead[0], 0x10000 + ((lead[1] - 0xD800) << 10) + code - 0xDC00
        lead = None
        if code < 0x110000 and _may_stand(chr(code)):
            yield start, end, _plain(chr(code))


def _of_entity(name: str) -> str | None:
    if name[0] != "#":
        return html5.get(f"{name};")
    code = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    return chr(code) if code < 0x110000 and _may_stand(chr(code)) else None


def _may_stand(character: str) -> bool:
    """Tell whether an escape is decoded: control characters and lone surrogates are no part of a value."""
    return character.isprintable() or character in "\t\n\r" or _CHANGED.match(character) is not None


def _joined_numbers(text: str) -> list[Edit]:
    """Return the edits that join spaced characters, and numbers over two lines, in order and apart."""
    edits: list[Edit] = []
    for match in _SPACED_RUN.finditer(text):
        run = match[0]
        edits.extend((match.start() + place, match.start() + place + 1, "") for place in range(1, len(run), 2))
    position = 0
    for gap in _NUMBER_GAP.finditer(text):
        line = text[max(position, gap.start("gap") - _LONGEST_LABELLED_HEAD) : gap.start("gap")]
        head = _NUMBER_HEAD.search(line)
        if head is None:
            continue
        position = gap.end("gap")
        # Groups are joined by a blank, rows of digits directly.
        is_grouped = " " in head["head"] or " " in gap["tail"].rstrip(" .-")
        edits.append((*gap.span("gap"), " " if is_grouped else ""))
    edits.sort()
    apart: list[Edit] = []
    for edit in edits:
        if not apart or edit[0] >= apart[-1][1]:
            apart.append(edit)
    return apart


def _joined_words(text: str) -> list[Edit]:
    """Return the edits that join a long word with the one that begins the next line; a row of words is no value."""
    edits: list[Edit] = []
    for match in _WRAPPED_WORD.finditer(text):
        # A row of digits is a number. This comes first: what is passed over makes the text since the last edit longer.
        if not any(map(str.isalpha, match["head"])):
            continue
        start, end = match.span("gap")
        # Whole lines may follow each other; a shorter one is the last part of a value.
        goes_on = bool(edits) and " " not in text[edits[-1][1] : start]
        if not goes_on or start - edits[-1][1] >= _WHOLE_LINE_CHARACTERS:
            edits.append((start, end, ""))
    return edits
