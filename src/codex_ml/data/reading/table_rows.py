"""A row of a table as a line of JSON: always the same bytes for the same values, which stand for its original bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from codex_ml.data.problems import LineFault, shown_name

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical_line(row: Mapping[str, Any]) -> bytes | LineFault:
    """Return a row as one line: keys sorted, no spaces, UTF-8.

    A cell without a value is left out, in nested structures too: a table has no other way to say that a key is absent.
    Dates and times are written as in ISO 8601, decimal numbers as strings, so that no digit is lost.

    Parameters
    ----------
    row : mapping
        Column -> value as pyarrow gives it.

    Returns
    -------
    bytes or LineFault
        The line, or why the row cannot be one.
    """
    column = ""
    try:
        plain = {}
        for column, value in row.items():
            if value is not None:
                plain[column] = _plain(value)
        return _encode(plain).encode("utf-8")
    except TypeError as error:
        return LineFault("bad_row", f"column {shown_name(column)} holds {error}, which JSON has not")
    except UnicodeEncodeError:
        return LineFault("bad_encoding", "a cell holds half of a surrogate pair, which is no character")
    except RecursionError:
        return LineFault("too_deep", f"column {shown_name(column)} is nested too deep")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError("bytes" if isinstance(value, bytes) else type(value).__name__)
