"""JSON objects parsed fast, and exactly as the strict parser would: whatever could differ is given to that one.

orjson refuses what RFC 8259 refuses, and lone surrogates besides. Three things it takes in silence: a key that stands
twice in one object (the last value wins), whole numbers beyond 64 bits (they become floats), and any depth up to 1,024.
All three show in what it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

# A float of this size or more may have been written as a whole number beyond 64 bits.
_LARGEST_SAFE_FLOAT = float(2**63 - 2**10)


def parse_fast(raw: bytes, strict: Callable[[bytes], dict[str, Any]], max_nesting: int) -> dict[str, Any]:
    r"""Return what ``strict(raw)`` returns, or raise what it raises.

    Strings are counted on both sides. In the bytes they are the pairs of quotes that are not escaped; in the value
    they are its keys and its strings. Every string of the value stands in the bytes, and a doubled key stands there
    once more than in the value: the counts are equal if and only if no key is doubled.

    Parameters
    ----------
    raw : bytes
        One line.
    strict : callable
        Parses it slowly, refuses it with `ValueError`, and decides wherever there is doubt.
    max_nesting : int
        Depth beyond which ``strict`` refuses.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return strict(raw)
    if type(value) is not dict:
        return strict(raw)
    strings = 0
    for item in value.values():
        if type(item) is str:
            strings += 1
        else:
            # The lines of most files are flat; a walk is for those that are not.
            counted = _strings_inside(list(value.values()), max_nesting)
            if counted is None:
                return strict(raw)
            strings = counted
            break
    delimiters = 2 * (len(value) + strings)
    # There are never fewer, so an equal count leaves no room for quotes that are escaped or belong to a doubled key.
    return value if raw.count(b'"') == delimiters or _delimiters(raw) == delimiters else strict(raw)


def _delimiters(raw: bytes) -> int:
    """Return how many quotes in the bytes of valid JSON are not escaped."""
    # Backslashes stand inside strings only and are read in pairs from the left, as `replace` does.
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')


def _strings_inside(values: list[Any], max_nesting: int) -> int | None:
    """Return how many strings, keys included, the values of an object hold; None where the strict parser must look."""
    strings = 0
    depth = 1
    level = values
    while level:
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                strings += 1
            elif kind is dict or kind is list:
                if depth >= max_nesting:
                    return None
                strings += len(item) if kind is dict else 0
                below.extend(item.values() if kind is dict else item)
            elif kind is float and not -_LARGEST_SAFE_FLOAT < item < _LARGEST_SAFE_FLOAT:
                return None
        depth += 1
        level = below
    return strings
