"""Strings of a line changed one by one: which tokens, in which writing, and nothing else."""

from __future__ import annotations

import json

import pytest

from codex_ml.data.readers.json import parse_line
from codex_ml.io.json_strings import JsonPath, changed_tokens, with_tokens


def _hide(_place: JsonPath, text: str) -> str:
    return text.replace("SECRET", "*")


def _rewritten(raw: bytes) -> bytes:
    return with_tokens(raw, changed_tokens(parse_line(raw), _hide))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb'{"a": "SECRET"}', rb'{"a": "*"}'),
        (
            rb' { "a" :1.50e+3,"b":[ -0, true,null , "x SECRET"]}	',
            rb' { "a" :1.50e+3,"b":[ -0, true,null , "x *"]}	',
        ),
        (rb'{"\u0061": "\/ \u00e9", "b": "\u00e9 SECRET"}', rb'{"\u0061": "\/ \u00e9", "b": "\u00e9 *"}'),
        ('{"a": "é SECRET", "b": "\U0001f600"}'.encode(), '{"a": "é *", "b": "\U0001f600"}'.encode()),
        (rb'{"a": "\ud83d\ude00 SECRET \" \\", "b": "\\"}', rb'{"a": "\ud83d\ude00 * \" \\", "b": "\\"}'),
        (rb'{"a": "12 \"3\" SECRET", "b": 4, "SECRET": {"c": []}}', rb'{"a": "12 \"3\" *", "b": 4, "*": {"c": []}}'),
        (rb'{"a": "true 1 SECRET", "b": 99999999999999999999, "c": {}}', None),
    ],
)
def test_with_tokens_changed_strings_leave_every_other_byte(raw: bytes, expected: bytes | None) -> None:
    """Spacing, escapes, numbers and order stay; ASCII stays ASCII, UTF-8 stays UTF-8."""
    assert _rewritten(raw) == (raw.replace(b"SECRET", b"*") if expected is None else expected)


def test_with_tokens_control_characters_are_escaped() -> None:
    """What is put in may hold anything; the line stays one line of valid JSON."""
    raw = b'{"a": "SECRET", "b": "\xc3\xa9 SECRET"}'
    changed = changed_tokens(parse_line(raw), lambda _place, text: text.replace("SECRET", 'x\n"\\\x00'))
    line = with_tokens(raw, changed)
    assert b"\n" not in line
    assert json.loads(line) == {"a": 'x\n"\\\x00', "b": 'é x\n"\\\x00'}


def test_changed_tokens_keys_that_become_equal_are_numbered_in_their_order() -> None:
    """Nothing disappears; a key that was called so before gives way, too."""
    raw = b'{"SECRET": 1, "*": 2, "o": {"SECRET": 3, "*#2": 4, "*": 5}, "*#2": 6}'
    assert json.loads(_rewritten(raw)) == {"*": 1, "*#2": 2, "o": {"*": 3, "*#2": 4, "*#3": 5}, "*#2#2": 6}


def test_changed_tokens_very_many_keys_that_become_equal_take_no_time() -> None:
    """Of 50,000 none is tried twice: the other way they would take minutes, and a file is read in seconds."""
    changed = changed_tokens({f"SECRET{number}": number for number in range(50_000)}, lambda _place, _text: "*")
    names = [text for _, text in sorted(changed.items())]
    assert names == ["*", *(f"*#{number}" for number in range(2, 50_001))]


def test_changed_tokens_places_are_those_of_the_line() -> None:
    """A key ends in None, elements are counted, short numbers, fractions and words are not shown."""
    seen: list[tuple[JsonPath, str]] = []

    def note(place: JsonPath, text: str) -> str:
        seen.append((place, text))
        return text

    raw = b'{"a": ["x", {"b": 1234567}], "c": -12345, "d": [true, null, 1.5e9, -7654321, 7654321.5]}'
    assert changed_tokens(parse_line(raw), note) == {}
    assert seen == [
        ((None,), "a"),
        (("a", 0), "x"),
        (("a", 1, None), "b"),
        (("a", 1, "b"), "1234567"),
        ((None,), "c"),
        ((None,), "d"),
        (("d", 2), "1500000000"),
        (("d", 3), "-7654321"),
    ]


def test_changed_tokens_long_number_becomes_a_string() -> None:
    """In the place of the number, and of that number alone, also where a column with gaps made it a float."""
    raw = b'{"n": 1, "card": 4111111111111111, "m": 4111111111111111.0, "x": 4111111111111111.5}'
    changed = changed_tokens(parse_line(raw), lambda _place, text: "*" if text.isdigit() else text)
    assert with_tokens(raw, changed) == b'{"n": 1, "card": "*", "m": "*", "x": 4111111111111111.5}'
