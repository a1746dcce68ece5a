"""Fields of a record found in raw rows."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.data.prepare.config import map_columns, value_at
from codex_ml.data.problems import LineFault


def test_map_columns_paths_and_plain_names_are_found_and_numbers_become_text() -> None:
    """A name that holds points itself comes first; text stays as it is, to the byte."""
    row = {"a.b": " x\r\n", "a": {"b": "no", "c": {"d": 7}}, "flag": True, "turns": [{"role": "user"}]}
    columns = {"prompt": "a.b", "completion": "a.c.d", "text": "flag", "messages": "turns"}
    record, converted = map_columns(row, columns)
    assert record == {"prompt": " x\r\n", "completion": "7", "text": "true", "messages": [{"role": "user"}]}
    assert converted == 2


@pytest.mark.parametrize(
    ("row", "state"), [({"a": {"b": None}}, "null"), ({"a": {}}, "absent"), ({"a": "text"}, "absent"), ({}, "absent")]
)
def test_map_columns_missing_value_is_refused_by_name(row: dict[str, Any], state: str) -> None:
    """A record is never made with a hole in it."""
    with pytest.raises(LineFault, match=f"the column 'a.b' for prompt is {state}"):
        map_columns(row, {"prompt": "a.b"})


def test_value_at_absent_is_none() -> None:
    """Nothing is found below what is no object."""
    assert value_at({"a": [1]}, "a.0") is None
