"""The structure of a regular expression in Oniguruma's syntax, as far as the cost of matching depends on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_INTERVAL = re.compile(r"\{(\d*)(,?)(\d*)\}")
_ESCAPE = re.compile(r"\\(?:[pP]\{\^?\w+\}|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_GROUP_START = re.compile(r"\(\?(?:[imsxadu-]*:|<?[=!]|>|<\w+>|'\w+'|~)")
_OPTIONS = re.compile(r"\(\?[imsxadu-]*\)|\(\?#[^)]*\)")
_MOST_LEVELS = 50
# A repetition with a bound this high costs as much as one without.
_AS_GOOD_AS_UNBOUNDED = 64
_LONGEST_SAMPLE = 200
# What a class or an escape matches; the first letter decides for a Unicode property.
_PROPERTY_SAMPLES = {"N": "1", "P": "!", "S": "$", "Z": " ", "M": "\u0301"}
_ESCAPE_SAMPLES = {"s": " ", "W": " ", "d": "1", "n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_LETTERS, _NO_CHARACTER = "wSDhHRXONP", "bBAzZGKykg123456789"


class RegexSyntaxError(ValueError):
    """The expression has no structure that can be read; the library that compiles it decides."""


@dataclass
class Item:
    """One factor of a sequence: how often it repeats, and the alternatives inside it, if it is a group."""

    text: str
    atom: str = ""  # without its quantifiers
    least: int = 1
    repeats: int = 1  # how often it occurs at least, as far as samples of it need that
    is_unbounded: bool = False
    keeps_match: bool = False  # possessive or atomic: it is not tried again with less
    alternatives: list[list[Item]] = field(default_factory=list)


def parse(expression: str) -> list[list[Item]]:
    """Return the alternatives of an expression, each a sequence of items.

    The syntax is that of https://github.com/kkos/oniguruma/blob/master/doc/RE.

    Raises
    ------
    RegexSyntaxError
        If brackets do not close, or are nested too deep.
    """
    alternatives, end = _parse_alternatives(expression, 0, 0)
    if end != len(expression):
        raise RegexSyntaxError("a bracket closes that was not opened")
    return alternatives


def ambiguous_part(alternatives: list[list[Item]]) -> str | None:
    r"""Return a part that can match one text in a number of ways that grows exponentially with its length; None: none.

    Those are: an unbounded repetition of a group in which some alternative consists of one unbounded repetition and
    otherwise optional items (``(a+)+``, ``(\w+\s?)*``), and one whose alternatives include equal ones (``(a|a)*``).
    """
    for sequence in alternatives:
        for item in sequence:
            if item.alternatives and item.is_unbounded and not item.keeps_match and _is_ambiguous(item):
                return item.text
            if (found := ambiguous_part(item.alternatives)) is not None:
                return found
    return None


def sample_characters(expression: str, most: int) -> list[str]:
    """Return characters that an expression names literally, in the order of their first place."""
    plain = _INTERVAL.sub("", _ESCAPE.sub(lambda found: found[0][1] if not found[0][1].isalnum() else "", expression))
    names = dict.fromkeys(mark for mark in plain if mark not in "()[]{}|*+?^$.&")
    return list(names)[:most]


def sample_repetitions(alternatives: list[list[Item]]) -> list[tuple[str, str]]:
    """Return texts that lead a match to its repetitions: what comes before one, and what it repeats.

    A text that repeats the second part behind the first is hard for a repetition that is tried from every length. The
    second part is also what comes before a repetition, without a first part: then the repetition is tried from many
    places of one text.
    """
    found: dict[tuple[str, str], None] = {}
    _collect_samples(alternatives, "", found)
    return list(found)


def _collect_samples(alternatives: list[list[Item]], before: str, found: dict[tuple[str, str], None]) -> None:
    for sequence in alternatives:
        text = before
        for item in sequence:
            unit = _sample(item)
            if item.is_unbounded:
                found[("", text)] = found[(text, unit)] = None
            _collect_samples(item.alternatives, text, found)
            if item.least:
                text = (text + unit * item.repeats)[:_LONGEST_SAMPLE]
        found[("", text)] = None
    for pair in [pair for pair in found if not pair[1]]:
        del found[pair]


def _sample(item: Item) -> str:
    """Return a short text that an item matches; a guess, where it is a class."""
    if item.alternatives:
        inner = "".join(_sample(one) * one.repeats for one in item.alternatives[0] if one.least)
        return inner[:_LONGEST_SAMPLE] or next((_sample(one) for one in item.alternatives[0]), "")
    atom = item.atom
    if atom.startswith("[^"):
        return next((mark for mark in "!a 1" if mark not in atom), "\u4e2d")
    if atom.startswith("["):
        inside = atom[1:-1].lstrip("[")
        escape = _ESCAPE.match(inside)
        return _escape_sample(escape[0]) if escape is not None else inside[:1]
    if atom.startswith("\\"):
        return _escape_sample(atom)
    return "a" if atom == "." else atom


def _escape_sample(escape: str) -> str:
    kind, rest = escape[1], escape[2:].strip("{}")
    if kind in "xu" and rest:
        number = int(rest, 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""
    if kind == "p" and rest:
        return _PROPERTY_SAMPLES.get(rest[0], "A" if rest == "Lu" else "a")
    if kind in _NO_CHARACTER and not rest:
        return ""
    if kind in _LETTERS:
        return "a"
    return _ESCAPE_SAMPLES.get(kind, kind)


def _is_ambiguous(group: Item) -> bool:
    texts = ["".join(item.text for item in sequence) for sequence in group.alternatives]
    if len(set(texts)) < len(texts):
        return True
    for sequence in group.alternatives:
        loops = [item for item in sequence if (item.is_unbounded and not item.keeps_match) or _holds_only_a_loop(item)]
        if loops and all(item.least == 0 or item in loops[:1] for item in sequence):
            return True
    return False


def _holds_only_a_loop(item: Item) -> bool:
    """Tell whether an item is a group without repetition of its own that is one unbounded item, as in ``((a+))+``."""
    return any(
        not only.keeps_match and (only.is_unbounded or _holds_only_a_loop(only))
        for sequence in item.alternatives
        for only in sequence
        if len(sequence) == 1
    )


def _parse_alternatives(text: str, place: int, level: int) -> tuple[list[list[Item]], int]:
    if level > _MOST_LEVELS:
        raise RegexSyntaxError("groups are nested too deep")
    alternatives: list[list[Item]] = [[]]
    while place < len(text) and text[place] != ")":
        if text[place] == "|":
            alternatives.append([])
            place += 1
            continue
        if (options := _OPTIONS.match(text, place)) is not None:
            place = options.end()
            continue
        item, place = _parse_item(text, place, level)
        if item is not None:
            alternatives[-1].append(item)
    return alternatives, place


def _parse_item(text: str, start: int, level: int) -> tuple[Item | None, int]:
    mark = text[start]
    is_look_around = False
    item = Item("")
    if mark == "(":
        begin = _GROUP_START.match(text, start)
        place = start + 1 if begin is None else begin.end()
        item.alternatives, place = _parse_alternatives(text, place, level + 1)
        if place >= len(text):
            raise RegexSyntaxError("a group does not end")
        place += 1
        item.keeps_match = begin is not None and begin[0] == "(?>"
        is_look_around = begin is not None and begin[0][-1] in "=!"
    elif mark == "[":
        place = _end_of_class(text, start)
    elif mark == "\\":
        escape = _ESCAPE.match(text, start)
        if escape is None:
            raise RegexSyntaxError("the expression ends in an escape")
        place = escape.end()
    else:
        place = start + 1
    item.atom = text[start:place]
    place = _parse_quantifiers(text, place, item)
    item.text = text[start:place]
    if is_look_around:
        item.least = 0  # it takes no character
    return (None if mark in "^$" else item), place


def _parse_quantifiers(text: str, place: int, item: Item) -> int:
    """Read the quantifiers behind an item; one behind another multiplies it, except for ``?`` and ``+``."""
    while place < len(text):
        interval = _INTERVAL.match(text, place)
        if text[place] in "*+?":
            item.least = 0 if text[place] in "*?" else item.least
            item.is_unbounded |= text[place] in "*+"
            place += 1
        elif interval is not None and (interval[1] or interval[3]):
            highest = interval[3] or (interval[1] if not interval[2] else "")
            item.least = min(item.least, int(interval[1] or 0))
            item.repeats = max(1, min(int(interval[1] or 0), _LONGEST_SAMPLE))
            item.is_unbounded |= not highest or int(highest) >= _AS_GOOD_AS_UNBOUNDED
            place = interval.end()
        else:
            break
        if text[place : place + 1] == "+":
            item.keeps_match = True
            place += 1
        elif text[place : place + 1] == "?":
            place += 1
    return place


def _end_of_class(text: str, start: int) -> int:
    depth, place = 0, start
    while place < len(text):
        mark = text[place]
        if mark == "\\":
            place += 1
        elif mark == "[":
            depth += 1
            # A closing bracket that comes first is an ordinary character.
            place += text.startswith("^", place + 1)
            place += text.startswith("]", place + 1)
        elif mark == "]":
            depth -= 1
            if not depth:
                return place + 1
        place += 1
    raise RegexSyntaxError("a character class does not end")
