"""Lines of any shape and spelling, redacted: the value is what `redact_value` makes of it, the other bytes stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.readers.json import parse_line
from codex_ml.io.json_strings import changed_tokens, with_tokens
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import parse_policy
from tiers import examples

pytestmark = pytest.mark.safety
_ADDRESS = "ann" + "@" + "example.com"
_POLICY = r"""
version: 1
rules:
  - {id: address, kind: pii, description: d, patterns: ['[a-z]+@[a-z]+[.]com']}
  - {id: number, kind: pii, description: d, patterns: ['[0-9]{8,}']}
"""
_FILTERS = SafetyFilters(parse_policy(_POLICY, "property"))
_plain = st.text(st.characters(codec="utf-8"), max_size=12)
_planted = st.builds(lambda before, after: f"{before} {_ADDRESS} {after}", _plain, _plain)
_texts = st.one_of(_plain, _planted, st.just(_ADDRESS), st.just("[REDACTED:address]"), st.just("[REDACTED:address]#2"))
_floats = st.floats(allow_nan=False, allow_infinity=False)
_numbers = st.one_of(st.integers(-(10**12), 10**12), st.integers(-(10**30), 10**30), _floats)
_values = st.recursive(
    st.one_of(_texts, _numbers, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_texts, inner, max_size=4)),
    max_leaves=12,
)
_rows = st.dictionaries(_texts, _values, max_size=5)


@examples(200)
@given(row=_rows, in_ascii=st.booleans(), separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]))
def test_with_tokens_any_row_is_what_redact_value_makes_of_it(
    row: dict[str, Any], in_ascii: bool, separators: tuple[str, str]
) -> None:
    """The parsed result equals the redacted value; what lies outside the changed tokens is byte for byte the same."""
    raw = json.dumps(row, ensure_ascii=in_ascii, separators=separators).encode("utf-8")
    value = parse_line(raw)
    changed = changed_tokens(value, lambda _place, text: _FILTERS.apply(text).text)
    line = with_tokens(raw, changed)
    assert json.loads(line) == _FILTERS.redact_value(value)
    assert list(json.loads(line)) == list(_FILTERS.redact_value(value))  # in the same order
    before, after = _pieces(raw), _pieces(line)
    assert len(before) == len(after)
    token = -1
    for old, new in zip(before, after, strict=True):
        token += old[:1] in b'"-0123456789' and old != b""
        if token not in changed or old[:1] not in b'"-0123456789':
            assert old == new
    # Again, it changes nothing.
    assert changed_tokens(parse_line(line), lambda _place, text: _FILTERS.apply(text).text) == {}


def _pieces(raw: bytes) -> list[bytes]:
    """Return strings, numbers and what stands between them, cut by hand and not by the expression under test."""
    pieces: list[bytes] = []
    position = begin = 0

    def cut(end: int) -> None:
        nonlocal begin
        if end > begin:
            pieces.append(raw[begin:end])
        begin = end

    while position < len(raw):
        mark = raw[position : position + 1]
        if mark == b'"':
            cut(position)
            position += 1
            while raw[position : position + 1] != b'"':
                position += 2 if raw[position : position + 1] == b"\\" else 1
            position += 1
            cut(position)
        elif mark in b"-0123456789":
            cut(position)
            while raw[position : position + 1] and raw[position : position + 1] in b"+-.0123456789eE":
                position += 1
            cut(position)
        else:
            position += 1
    cut(position)
    return pieces
