"""JSON read strictly: no duplicate keys, no non-finite numbers, bounded depth; quickly where the text is simple."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import orjson

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.format_detection import hint_for_line

MAX_NESTING = 64
# As many as Python converts by default; more of them take time that grows with their square.
MAX_DIGITS = 4300

_TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
_JSON_NAMES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}


def parse_line(raw: bytes) -> dict[str, Any]:
    """Parse the bytes of one line into an object, as `parse_object` does, and faster.

    Raises
    ------
    LineFault
        As `parse_object`.
    """
    return parse_fast(raw, parse_object, MAX_NESTING)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse the bytes of one line into an object.

    Refused are bytes that are not UTF-8, doubled keys, NaN and infinities, numbers beyond a 64-bit float or of more
    than 4,300 digits, lone surrogates, raw control characters, nesting deeper than 64, and what is no object.

    Raises
    ------
    LineFault
        With a message that says what is wrong and where, and holds no content.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} of the line"
        raise LineFault("bad_encoding", f"not UTF-8: {place} ({error.reason})", error.start) from None
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        # Some of the reasons end in "at" by themselves.
        reason = error.msg.removesuffix(" at").removesuffix(" (decode using utf-8-sig)")
        hint = hint_for_line(text, error.pos)
        why = f"; {hint}" if hint else ""
        raise LineFault("bad_json", f"not valid JSON: {reason} at column {error.colno}{why}") from None
    except RecursionError:
        raise LineFault("too_deep", _TOO_DEEP) from None
    if not isinstance(value, dict):
        raise LineFault("not_an_object", f"a record is a JSON object, this is {_JSON_NAMES[type(value)]}")
    # The walk costs as much as the parse; most lines show without it that they cannot need it.
    if raw.count(b"[") + raw.count(b"{") > MAX_NESTING or b"\\ud" in raw.lower():
        _check_depth_and_text(value)
    return value


# At any depth a key may be content, such as the number of a patient; these are names of fields.
_FIELD_NAMES = frozenset(
    (
        *(
            "prompt",
            "completion",
            "text",
            "instruction",
            "input",
            "output",
            "question",
            "answer",
            "context",
            "response",
        ),
        *("messages", "conversations", "role", "from", "content", "value", "system", "tools", "tool_calls", "weight"),
        *("function", "functions", "function_call", "name", "arguments", "id", "type"),
    )
)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                shown = repr(key) if key in _FIELD_NAMES else "(one that is not shown)"
                raise LineFault("doubled_key", f"duplicate key {shown} in one object")
            seen.add(key)
    return value


def _refuse_constant(name: str) -> float:
    raise LineFault("bad_number", f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise LineFault("bad_number", "a number is too large for a 64-bit float")
    return value


def _bounded_integer(text: str) -> int:
    digits = len(text) - text.startswith("-")
    if digits > MAX_DIGITS:
        raise LineFault("bad_number", f"a number has {digits} digits, more than the {MAX_DIGITS} that are read")
    value = int(text)
    try:
        float(value)
    except OverflowError:
        raise LineFault("bad_number", "a number is too large for a 64-bit float") from None
    return value


# One decoder for all lines: `json.loads` with options makes a new one for each. It refuses raw control characters.
_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite_float, parse_int=_bounded_integer
)


def _check_depth_and_text(value: Any) -> None:
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
                raise LineFault("lone_surrogate", "a string holds half of a surrogate pair, which is no character")
        elif isinstance(item, dict | list):
            if depth > MAX_NESTING:
                raise LineFault("too_deep", _TOO_DEEP)
            children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            pending.extend((child, depth + 1) for child in children)


# A float of this size or more may have been written as a whole number beyond 64 bits.
_LARGEST_SAFE_FLOAT = float(2**63 - 2**10)


def parse_fast(raw: bytes, strict: Callable[[bytes], dict[str, Any]], max_nesting: int) -> dict[str, Any]:
    r"""Return what ``strict(raw)`` returns, or raise what it raises.

    Strings are counted on both sides. In the bytes they are the pairs of quotes that are not escaped; in the value
    they are its keys and its strings. Every string of the value occurs in the bytes, and a duplicate key occurs there
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
    # There are never fewer, so an equal count excludes escaped quotes and duplicate keys.
    return value if raw.count(b'"') == delimiters or _delimiters(raw) == delimiters else strict(raw)


def _delimiters(raw: bytes) -> int:
    """Return how many quotes in the bytes of valid JSON are not escaped."""
    # Backslashes occur inside strings only and are read in pairs from the left, as `replace` does.
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
