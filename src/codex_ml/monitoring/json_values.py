"""Turns any record into plain JSON values that every reader accepts: no NaN, no infinity, no foreign types."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any


def plain_json(value: Any) -> tuple[Any, dict[str, str]]:
    """Return a copy of a value made of plain JSON types, and what could not be written as a number.

    JSON has no NaN and no infinity, and writers that emit them anyway make lines that strict readers refuse. Such a
    float becomes null and is named in the second result, so nothing is lost: ``({"loss": None}, {"loss": "nan"})``.

    Parameters
    ----------
    value : Any
        Mappings with string keys, lists, tuples, strings, numbers (NumPy scalars too), booleans, None, paths.

    Returns
    -------
    copy : Any
        Dictionaries, lists, strings, integers, finite floats, booleans and None; shares nothing with ``value``.
    non_finite : dict of str to str
        Dotted key of each replaced float, with ``"nan"``, ``"inf"`` or ``"-inf"``.

    Raises
    ------
    TypeError
        If a value or a key is of another type: guessing its text could carry content past the filters.
    """
    non_finite: dict[str, str] = {}
    return _plain(value, "", non_finite), non_finite


def plain_copy(value: Any) -> Any:
    """Return a copy as `plain_json` does, but with NaN and infinities still in it; for use inside this process."""
    return _plain(value, "", None)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, dotted))
        else:
            flat[dotted] = value
    return flat


def _plain(value: Any, key: str, non_finite: dict[str, str] | None) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isfinite(number) or non_finite is None:
            return number
        non_finite[key or "value"] = str(number)
        return None
    if isinstance(value, Mapping):
        return {_text_key(name, key): _plain(item, _join(key, name), non_finite) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, _join(key, index), non_finite) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"{key or 'the record'}: {type(value).__name__} is not a JSON value")


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _text_key(name: object, key: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{key or 'the record'}: key {name!r} is {type(name).__name__}, JSON keys are strings")
    return name
