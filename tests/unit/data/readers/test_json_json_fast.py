"""The fast parser on the inputs where orjson and the strict parser differ."""

from __future__ import annotations

import json

import pytest

from codex_ml.data.readers.json import MAX_NESTING, parse_fast, parse_object


class _Counting:
    """The strict parser, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, raw: bytes) -> dict:
        self.asked += 1
        return parse_object(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt": "a", "completion": "b"}',
        '{"prompt":"\u2028 é 😀","completion":"\\u00e9\\n\\\\"}'.encode(),
        b'{ "text" : "he said \\"a\\": b \\\\\\": c" }',
        b'{"messages":[{"role":"user","content":"{\\"a\\":1}"},{"role":"tool","content":""}],"n":[1,2.5,null,true]}',
        b'{"a":{"a":{"a":1}},"b":{"a":"a"}}',
        b'{"big":18446744073709551615,"small":-9223372036854775808}',
        b"{}",
    ],
)
def test_parse_fast_ordinary_records_need_no_second_look(raw: bytes) -> None:
    """Escaped quotes, nested objects with equal keys and 64-bit numbers are settled without the slow parser."""
    strict = _Counting()
    assert parse_fast(raw, strict, MAX_NESTING) == json.loads(raw)
    assert strict.asked == 0


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":2}', "duplicate key"),
        (b'{"a":1,"\\u0061":2}', "duplicate key"),
        (b'{"x":"","a":{"b":[{"c":1,"c":"d"}]}}', "duplicate key"),
        (b'{"a":"\\"","a":"\\\\"}', "duplicate key"),
        (b'{"a":NaN}', "not a JSON number"),
        (b'{"a":1e400}', "too large"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":1', "not valid JSON"),
        (b'[{"a":1}]', "this is an array"),
        (b'"a"', "this is a string"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested deeper"),
        (b'{"a":' + b'{"a":' * 63 + b"[]" + b"}" * 64, "nested deeper"),
        (b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}", "nested deeper"),
    ],
)
def test_parse_fast_what_orjson_takes_or_words_otherwise_is_refused_as_strictly(raw: bytes, reason: str) -> None:
    """The message is the strict parser's own."""
    with pytest.raises(ValueError, match=reason):
        parse_fast(raw, parse_object, MAX_NESTING)


@pytest.mark.parametrize(
    "number", ["18446744073709551616", "-9223372036854775809", "1" * 300, "-1e19", "9.3e18", "1e-9999"]
)
def test_parse_fast_numbers_beyond_64_bits_keep_value_and_type(number: str) -> None:
    """A whole number stays one; orjson alone would round it to a float."""
    raw = b'{"a":%s}' % number.encode()
    value, expected = parse_fast(raw, parse_object, MAX_NESTING), json.loads(raw)
    assert value == expected
    assert type(value["a"]) is type(expected["a"])


def test_parse_fast_deepest_allowed_nesting_is_accepted() -> None:
    """The border is the strict parser's."""
    raw = b'{"a":' + b"[" * (MAX_NESTING - 1) + b"]" * (MAX_NESTING - 1) + b"}"
    assert parse_fast(raw, parse_object, MAX_NESTING) == parse_object(raw)
