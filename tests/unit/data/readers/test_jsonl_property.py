"""Properties of the JSON Lines reader."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.readers.json import parse_object
from codex_ml.data.readers.jsonl import iter_jsonl
from tiers import examples

characters = st.characters(exclude_categories=["Cs"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(characters),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(characters), children, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(characters), values, max_size=4)


@examples(30)
@given(st.lists(objects, min_size=1, max_size=6), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_iter_jsonl_whatever_json_writes_reads_back(records: list[dict], ascii_only: bool, line_end: str) -> None:
    """Every object that the standard library writes comes back equal, in order, with true offsets."""
    content = line_end.join(json.dumps(record, ensure_ascii=ascii_only) for record in records).encode("utf-8")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "data.jsonl"
        path.write_bytes(content)
        lines = list(iter_jsonl(path))
    assert [line.value for line in lines] == records
    assert all(content[line.offset : line.offset + len(line.raw)] == line.raw for line in lines)


@examples(150)
@given(st.binary(max_size=40))
def test_parse_object_any_bytes_give_an_object_or_a_value_error(raw: bytes) -> None:
    """No input makes the parser fail in another way."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse_object(raw), dict)
