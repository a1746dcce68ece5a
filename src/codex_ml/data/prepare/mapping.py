"""One raw row made into a record: the fields that are asked for, found by their paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from codex_ml.data.problems import LineFault, shown_name


def map_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Return the record that some columns make of a row, and how many of its values were numbers made into text.

    Text is taken as it is, and so are lists and objects (the turns of a conversation). A number or truth value, as
    tables hold them, becomes the text that JSON has for it.

    Parameters
    ----------
    row : mapping
        The raw row.
    columns : mapping
        Field of the record -> name in the row, or a path with points such as ``answer.text``; a name that holds points
        itself is found first.

    Raises
    ------
    LineFault
        If a column is absent or null; the message holds no value.
    """
    record: dict[str, Any] = {}
    converted = 0
    for field, path in columns.items():
        value = value_at(row, path)
        if value is None:
            state = "null" if _is_there(row, path) else "absent"
            raise LineFault("bad_shape", f"the column {shown_name(path)} for {field} is {state}")
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
            converted += 1
        record[field] = value
    return record, converted


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path; None where nothing does."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _is_there(row: Mapping[str, Any], path: str) -> bool:
    if path in row:
        return True
    above, _, name = path.rpartition(".")
    parent = value_at(row, above) if above else None
    return isinstance(parent, Mapping) and name in parent
