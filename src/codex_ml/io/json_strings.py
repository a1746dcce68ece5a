"""Strings of a line of JSON changed one by one, and every byte that does not belong to a changed one left as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

# Keys and numbers of elements from the outermost in; None at the end stands for a key itself.
JsonPath = tuple[str | int | None, ...]
# Takes where a text stands and the text, and returns what is to stand there.
ChangeText = Callable[[JsonPath, str], str]

# A shorter number is nobody's; `SafetyFilters.redact_value` draws the same line.
_SHORTEST_LOOKED_AT = 10**5
# Strings and numbers of valid JSON. Words such as true hold neither a quote nor a digit, so nothing else is met.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*+', re.DOTALL)


def changed_tokens(value: Mapping[str, Any], change: ChangeText) -> dict[int, str]:
    """Show every string of an object to a function, and return what it changed, by the number of the token.

    Keys, strings at any depth and whole numbers of six digits and more are shown, in the order of the line. Of keys
    that become equal the later ones get ``#2``, ``#3`` … behind them, as `SafetyFilters.redact_value` does it.

    Parameters
    ----------
    value : mapping
        A line as it was parsed: keys in their order, none of them doubled.
    change : callable
        Returns the text that is to stand at a place; the same text where it is to stay.

    Returns
    -------
    dict
        Number of a token (strings, keys and numbers, counted from 0 in the order of the line) -> its new text.
    """
    walk = _Walk(change)
    walk.visit(value, ())
    return walk.changed


class _Walk:
    """Counts the tokens of a line while it shows them."""

    def __init__(self, change: ChangeText) -> None:
        self.changed: dict[int, str] = {}
        self._change = change
        self._next_token = 0

    def visit(self, item: Any, place: JsonPath) -> None:
        kind = type(item)
        if kind is str:
            self._set(self._number(), item, self._change(place, item))
        elif kind is dict:
            self._visit_object(item, place)
        elif kind is list:
            for index, child in enumerate(item):
                self.visit(child, (*place, index))
        elif kind in {int, float}:
            number = self._number()
            # A column of numbers with gaps is often written as floats: 4111111111111111.0 is a card number still.
            if abs(item) >= _SHORTEST_LOOKED_AT and item == int(item):
                self._set(number, str(int(item)), self._change(place, str(int(item))))

    def _visit_object(self, item: dict[str, Any], place: JsonPath) -> None:
        taken: set[str] = set()
        # A row may be made of thousands of keys that become equal: none of their numbers is tried twice.
        last_suffix: dict[str, int] = {}
        for key, child in item.items():
            number = self._number()
            name = plain = self._change((*place, None), key)
            suffix = last_suffix.get(plain, 1)
            while name in taken:
                suffix += 1
                name = f"{plain}#{suffix}"
            last_suffix[plain] = suffix
            taken.add(name)
            self._set(number, key, name)
            self.visit(child, (*place, key))

    def _number(self) -> int:
        number = self._next_token
        self._next_token += 1
        return number

    def _set(self, number: int, before: str, after: str) -> None:
        if after != before:
            self.changed[number] = after


def with_tokens(raw: bytes, changed: Mapping[int, str]) -> bytes:
    """Return a line with other strings in the place of some tokens.

    A token of ASCII alone is written in ASCII alone, any other in UTF-8.

    Parameters
    ----------
    raw : bytes
        The line that was parsed.
    changed : mapping
        As `changed_tokens` returns it.
    """
    parts: list[bytes] = []
    position = 0
    for number, match in enumerate(_TOKEN.finditer(raw)):
        if (text := changed.get(number)) is not None:
            parts += [raw[position : match.start()], _token(text, in_ascii=match.group().isascii())]
            position = match.end()
    parts.append(raw[position:])
    return b"".join(parts)


def _token(text: str, *, in_ascii: bool) -> bytes:
    return json.dumps(text, ensure_ascii=in_ascii).encode("utf-8")
