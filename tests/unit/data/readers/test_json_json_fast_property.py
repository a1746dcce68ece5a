"""Property: the fast parser accepts what the strict one accepts, and returns the same value of the same types."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from codex_ml.data.readers.json import MAX_NESTING, parse_fast, parse_object
from tiers import examples


class _Pairs(list):
    """The members of an object as they are written, doubled keys included."""


common = examples(300)
# Short and few, so that keys collide; with everything that JSON escapes or that looks like its own signs.
texts = st.text(st.sampled_from('ab"\\:,{}[] \n\t\x7f\u2028é😀\x00'), max_size=4)
numbers = st.one_of(
    st.integers(),
    st.integers(min_value=2**63 - 2**12, max_value=2**64 + 2**12),
    st.integers(min_value=-(2**63) - 2**12, max_value=-(2**63) + 2**12),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: st.lists(children, max_size=3) | st.lists(st.tuples(texts, children), max_size=3).map(_Pairs),
    max_leaves=10,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :  ")])


objects = st.lists(st.tuples(texts, values), max_size=4).map(_Pairs)


def _written(value: Any, separators: tuple[str, str], ascii_only: bool) -> str:
    comma, colon = separators
    if isinstance(value, _Pairs):
        members = (
            json.dumps(key, ensure_ascii=ascii_only) + colon + _written(item, separators, ascii_only)
            for key, item in value
        )
        return "{" + comma.join(members) + "}"
    if isinstance(value, list):
        return "[" + comma.join(_written(item, separators, ascii_only) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def _outcome(raw: bytes, fast: bool) -> tuple[str, str]:
    """Return what a parser says: the value with its types (1 and 1.0 and True differ), or its words of refusal."""
    try:
        value = parse_fast(raw, parse_object, MAX_NESTING) if fast else parse_object(raw)
    except ValueError as error:
        return "refused", str(error)
    return "accepted", repr(value)


@common
@given(objects, separators, st.booleans())
def test_parse_fast_generated_objects_equal_the_strict_parser(
    pairs: _Pairs, separators: tuple[str, str], ascii_only: bool
) -> None:
    """Objects with and without doubled keys at any depth, in every spacing and escaping."""
    raw = _written(pairs, separators, ascii_only).encode("utf-8")
    assert _outcome(raw, fast=True) == _outcome(raw, fast=False)


fragments = st.one_of(
    st.sampled_from(
        [b'"', b"\\", b'\\"', b"\\\\", b":", b",", b"{", b"}", b"[", b"]", b'"a":1,', b'"a":', b"[" * 65, b"]" * 65]
    ),
    st.sampled_from([b"\\ud83d", b"\\ude00", b"\xed\xa0\x80", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8"]),
    st.sampled_from([b"NaN", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b"9" * 19, b"9" * 400, b"9" * 5000]),
    st.sampled_from([b"\x00", b"\r", b"\t", b" ", b"\x0b"]),
)


@common
@given(objects, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), fragments), min_size=1, max_size=4))
@example(_Pairs([("a", "\\"), ("a", "")]), [(0, 0, b"")])
def test_parse_fast_mutated_bytes_equal_the_strict_parser(pairs: _Pairs, changes: list[tuple[int, int, bytes]]) -> None:
    """Bytes cut out and put in anywhere: the same refusal in the same words, or the same value."""
    raw = _written(pairs, (",", ":"), False).encode("utf-8")
    for place, removed, fragment in changes:
        start = place % (len(raw) + 1)
        raw = raw[:start] + fragment + raw[start + removed :]
    assert _outcome(raw, fast=True) == _outcome(raw, fast=False)


@common
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_parse_fast_decimal_numbers_equal_the_strict_parser(number: float, digits: int) -> None:
    """Numbers written with too few, enough and too many digits round to the same float."""
    raw = f'{{"a":{number:.{digits}e},"b":{number!r}}}'.encode()
    assert _outcome(raw, fast=True) == _outcome(raw, fast=False)
