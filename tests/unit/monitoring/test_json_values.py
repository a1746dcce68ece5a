"""Tests of plain JSON values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from codex_ml.monitoring.json_values import flatten, plain_copy, plain_json


def test_plain_json_numpy_scalars_become_python_numbers() -> None:
    """Scalars of other libraries are written as what they are."""
    copy, non_finite = plain_json({"a": np.int64(3), "b": np.float32(0.5), "c": (True, None)})
    assert copy == {"a": 3, "b": 0.5, "c": [True, None]}
    assert [type(copy["a"]), type(copy["b"]), type(copy["c"][0])] == [int, float, bool]
    assert non_finite == {}


def test_plain_json_bare_nan_is_named_value() -> None:
    """A float without a key is named too."""
    assert plain_json(math.nan) == (None, {"value": "nan"})


@pytest.mark.parametrize("value", [{"x": object()}, {1: "a"}, {"x": {2: 3}}, {"x": b"bytes"}, {"x": {1, 2}}])
def test_plain_json_foreign_type_is_refused(value: dict) -> None:
    """No type is turned into text by guessing."""
    with pytest.raises(TypeError, match="JSON"):
        plain_json(value)


def test_plain_copy_keeps_nan_and_shares_nothing() -> None:
    """The copy for use in this process keeps NaN and is independent of its source."""
    source = {"inner": [math.nan], "path": Path("a/b")}
    copy = plain_copy(source)
    assert math.isnan(copy["inner"][0])
    assert copy["path"] == "a/b"
    copy["inner"].append(1)
    assert len(source["inner"]) == 1


def test_flatten_nested_mapping_joins_keys_with_dots() -> None:
    """Nested keys are joined, lists and empty mappings stay values."""
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1, 2], "e": {}}
