"""One line of JSON checked strictly: what RFC 8259 leaves open, or others repair in silence, is a named fault."""

from __future__ import annotations

import json
import math
from typing import Any

from codex_ml.data.problems import LineFault
from codex_ml.data.reading.json_fast import parse_fast
from codex_ml.data.reading.lookalikes import hint_for_line

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
                raise LineFault("doubled_key", f"key {shown} stands twice in one object")
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
