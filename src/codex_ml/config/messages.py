"""Words for what pydantic found wrong with one field: what was expected, what was given, what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from codex_ml.config.describe import FieldDescription
from codex_ml.errors import ConfigProblem

_SHOWN_CHARACTERS = 60
_FORMS = {"integer": "a whole number", "number": "a number", "text": "a text", "path": "a path"}
_BOUNDS = {"ge": "{} or more", "gt": "a value above {}", "le": "{} or less", "lt": "a value below {}"}
_TRUTH_WORDS = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}


def field_problem(field: FieldDescription, value: Any, details: list[ErrorDetails]) -> ConfigProblem:
    """Return one problem for all errors of one field.

    Parameters
    ----------
    field : FieldDescription
        The field of the schema.
    value : Any
        What the configuration gives for it.
    details : list of ErrorDetails
        Pydantic's errors; several where the field may be of several types, or where several items of a list are wrong.
    """
    bounds = [detail for detail in details if not _is_type_error(detail)]
    if len(bounds) == 1 and bounds[0]["type"] != "literal_error":
        if bounds[0]["type"] == "string_pattern_mismatch":
            return ConfigProblem(field.key, f"cannot be {shown(value)}", f"choose another text. {field.description}")
        said = re.sub(r"^(Input|String|Tuple|List) should", "must", bounds[0]["msg"]).replace(
            " after validation, not 0", ""
        )
        return ConfigProblem(field.key, f"{said}, got {shown(value)}", _way_out(field, bounds[0].get("ctx", {})))
    return ConfigProblem(field.key, f"expected {field.type}, got {_kind(value)}{shown(value)}", _type_fix(field, value))


def section_problem(key: str, value: Any, names: list[str]) -> ConfigProblem:
    """Return the problem of a section that is no mapping."""
    return ConfigProblem(
        key,
        f"expected a group of keys, got {_kind(value)}{shown(value)}",
        f"set {key}.KEY=VALUE; keys: {', '.join(names)}",
    )


def shown(value: Any) -> str:
    """Return a value as it is shown in a message, cut where it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _is_type_error(detail: ErrorDetails) -> bool:
    return detail["type"].endswith(("_type", "_parsing", "_from_float", "_error", "missing"))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "the text "
    if isinstance(value, Mapping):
        return "the mapping "
    return "the list " if isinstance(value, list) else ""


def _way_out(field: FieldDescription, limits: Mapping[str, Any]) -> str:
    """Return what a field may be set to, an example, and what it means; for a value that does not say what was meant.

    Parameters
    ----------
    field : FieldDescription
        The field.
    limits : mapping
        The bound that the value passed, as pydantic names it (``{"ge": 1}``); empty where its type was wrong.
    """
    bound = next((_BOUNDS[name].format(limit) for name, limit in limits.items() if name in _BOUNDS), None)
    expected = bound or " or ".join(_form(field, part) for part in field.type.split(" or "))
    given = field.default is not None and not isinstance(field.default, list | dict | bool)
    example = f", such as {field.default} (the default)" if given and str(field.default) not in expected else ""
    return f"set {field.key} to {expected}{example}. {field.description}"


def _form(field: FieldDescription, words: str) -> str:
    """Return one of the types of a field as something that can be written."""
    if words.startswith("list of"):
        item = words.rpartition("of ")[2]
        known = field.default if isinstance(field.default, list) else []
        items = known or ["NAME" if item in _FORMS else item]
        return f"a list: {field.key}=[{','.join(map(str, items))}]"
    if words.startswith("mapping of"):
        return f"a mapping: '{field.key}={{NAME: VALUE}}'"
    return f"one of {', '.join(words.split(' | '))}" if " | " in words else _FORMS.get(words, words)


def _type_fix(field: FieldDescription, value: Any) -> str:
    """Return what to write instead of a value of the wrong type."""
    if isinstance(value, str):
        number = _number(value)
        if number is not None and "number" in field.type:
            return f"write the number without quotes: {field.key}={number:g}"
        if number is not None and "integer" in field.type and number == int(number):
            return f"write the number without quotes: {field.key}={int(number)}"
        if "true or false" in field.type and value.lower() in _TRUTH_WORDS:
            return f"write {field.key}={_TRUTH_WORDS[value.lower()]}"
        near = difflib.get_close_matches(value, field.type.replace(" or ", " | ").split(" | "), n=1)
        if near:
            return f"did you mean {near[0]}?"
        if "list of" in field.type:
            return f"write a list: {field.key}=[{value}]"
    if isinstance(value, float) and "integer" in field.type and value == int(value):
        return f"write {field.key}={int(value)}"
    if isinstance(value, bool | int | float) and not {"text", "path"}.isdisjoint(field.type.split(" or ")):
        return f"""quote it to make it text: '{field.key}="{value}"'"""
    return _way_out(field, {})


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # Neither "nan" nor "inf" is a number a configuration may hold.
    return number if abs(number) < float("inf") else None
