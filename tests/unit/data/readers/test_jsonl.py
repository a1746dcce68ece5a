"""The strict JSON Lines reader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.data.problems import MAX_SHOWN
from codex_ml.data.readers.json import parse_object
from codex_ml.data.readers.jsonl import JsonlFile, iter_jsonl
from codex_ml.errors import DataError

Write = Callable[..., Path]


def test_iter_jsonl_plain_file_gives_lines_offsets_and_bytes(write_jsonl: Write) -> None:
    """Each record carries its line, the offset at which its bytes stand, and those bytes."""
    content = b'{"a": 1}\n\n{"b": "\xc3\xa9"}\r\n{"c": 3}'
    path = write_jsonl(content)
    lines = list(iter_jsonl(path))
    assert [line.line_number for line in lines] == [1, 3, 4]
    assert [line.value for line in lines] == [{"a": 1}, {"b": "é"}, {"c": 3}]
    assert [line.line_end for line in lines] == [b"\n", b"\r\n", b""]
    for line in lines:
        assert content[line.offset : line.offset + len(line.raw)] == line.raw


def test_jsonl_file_read_to_the_end_knows_digest_size_and_empty_lines(write_jsonl: Write) -> None:
    """Digest and size are those of the bytes read; empty and blank lines are counted."""
    content = b'\n{"a": 1}\n   \n\r\n{"a": 2}\n'
    file = JsonlFile(write_jsonl(content))
    assert len(list(file)) == 2
    assert file.empty_lines == 3
    assert file.byte_count == len(content)
    assert file.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_iter_jsonl_line_separators_inside_strings_stay_inside(write_jsonl: Write) -> None:
    """U+2028, U+2029, U+0085, vertical tab and form feed in a record do not end its line."""
    text = "a\u2028b\u2029c\u0085d"
    lines = list(iter_jsonl(write_jsonl([{"text": text}, {"text": "x"}])))
    assert [line.value["text"] for line in lines] == [text, "x"]


def test_iter_jsonl_byte_order_mark_is_taken_once_at_the_start(write_jsonl: Write) -> None:
    """A mark at the start belongs to no record; a second one is a fault."""
    lines = list(iter_jsonl(write_jsonl(b'\xef\xbb\xbf{"a": 1}\n{"a": 1}\n')))
    assert lines[0].raw == lines[1].raw
    assert lines[0].offset == 3
    with pytest.raises(DataError, match=r"data\.jsonl:2: "):
        list(iter_jsonl(write_jsonl(b'{"a": 1}\n\xef\xbb\xbf{"a": 1}\n')))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": SECRET}', "not valid JSON: Expecting value at column 7"),
        (b'{"a": "SECRET', "not valid JSON: Unterminated string starting at column 7"),
        (b'{"a": 1} SECRET', "not valid JSON: Extra data at column 10"),
        (b'{"a": "SECRET\xff"}', "not UTF-8: byte 14 of the line"),
        (b'{"text": "SECRET", "text": 2}', "duplicate key 'text' in one object"),
        (b'{"a": "SECRET", "a": 2}', r"duplicate key \(one that is not shown\) in one object"),
        (b'{"x": {"SECRET99999": 1, "SECRET99999": 2}}', r"duplicate key \(one that is not shown\)"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "a number is too large for a 64-bit float"),
        (b'{"a": "SECRET \\ud83d"}', "a string holds half of a surrogate pair"),
        (b'{"SECRET\\udc00": 1}', "a string holds half of a surrogate pair"),
        (b'["SECRET"]', "a record is a JSON object, this is an array"),
        (b'"SECRET"', "a record is a JSON object, this is a string"),
        (b"null", "a record is a JSON object, this is null"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64 levels"),
        (b'{"a": ' + b"7" * 5000 + b"}", "a number has 5000 digits, more than the 4300 that are read"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a number is too large for a 64-bit float"),
        (b'{"a": "SECRET\x01"}', "not valid JSON: Invalid control character at column 14"),
    ],
)
def test_iter_jsonl_faulty_line_is_named_without_its_content(write_jsonl: Write, line: bytes, reason: str) -> None:
    """The error says file, line and reason, and shows nothing of the record."""
    path = write_jsonl(b'{"a": 0}\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"^data\.jsonl:2: {reason}") as caught:
        list(iter_jsonl(path))
    assert "SECRET" not in caught.value.block()


def test_parse_object_deepest_nesting_and_whole_pairs_pass() -> None:
    """64 levels are allowed, and so is a surrogate pair that makes one character."""
    assert parse_object(b'{"a":' * 64 + b"1" + b"}" * 64)
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_iter_jsonl_line_longer_than_the_limit_is_named_and_the_next_is_read(write_jsonl: Write) -> None:
    """The limit counts bytes of the record; what follows keeps its line number and offset."""
    longest = b'{"a": "12345678"}'
    content = longest + b"\n" + b'{"a": "' + b"x" * 100 + b'"}\n' + longest + b"\r\n"
    path = write_jsonl(content)
    seen: list[tuple[int, int]] = []
    lines = iter_jsonl(path, max_line_bytes=len(longest))
    with pytest.raises(DataError, match=r"^data\.jsonl:2: the line is longer than 17 bytes"):
        seen.extend((line.line_number, line.offset) for line in lines)
    assert seen == [(1, 0), (3, content.rindex(longest))]


def test_iter_jsonl_many_faults_are_gathered_up_to_a_bound(write_jsonl: Write) -> None:
    """Three faults come in one error; of fifty, twenty are shown and all are counted."""
    with pytest.raises(DataError) as few:
        list(iter_jsonl(write_jsonl(b'{\n{"a": 1}\nx\n[]\n'.replace(b"{\n", b"{,\n", 1))))
    assert "the first of 3 problems" in few.value.block()
    assert all(f"data.jsonl:{number}:" in few.value.block() for number in (1, 3, 4))
    with pytest.raises(DataError) as many:
        list(iter_jsonl(write_jsonl(b"x\n" * 50)))
    block = many.value.block()
    assert "the first of 50 problems" in block
    assert f"data.jsonl:{MAX_SHOWN}: the same" in block
    assert f"data.jsonl:{MAX_SHOWN + 1}:" not in block
    assert f"and {50 - MAX_SHOWN} more" in block


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_iter_jsonl_file_without_a_record_is_an_error(write_jsonl: Write, content: bytes) -> None:
    """An empty file, or one of empty lines, is no data set."""
    with pytest.raises(DataError, match="the file holds no record"):
        list(iter_jsonl(write_jsonl(content)))


@pytest.mark.parametrize(
    ("content", "look"),
    [
        (b'[{"a": 1}, {"a": 2}]', "a JSON array"),
        (b'[\n  {"a": 1}\n]', "a JSON array"),
        (b'{\n  "a": 1\n}\n', "pretty-printed JSON"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16 text"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"PAR1\x00", "a Parquet file"),
    ],
)
def test_iter_jsonl_other_format_is_named(write_jsonl: Write, content: bytes, look: str) -> None:
    """A file of another format is called what it looks like."""
    with pytest.raises(DataError, match=f"looks like {look}"):
        list(iter_jsonl(write_jsonl(content)))


def test_iter_jsonl_absent_file_or_directory_says_what_is_there(write_jsonl: Write, tmp_path: Path) -> None:
    """The message lists the files of the nearest directory that exists."""
    write_jsonl([{"a": 1}], "train.jsonl")
    for path, reason in (
        (tmp_path / "trian.jsonl", "does not exist"),
        (tmp_path / "no" / "such.jsonl", "does not exist"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            list(iter_jsonl(path))
        assert "train.jsonl" in caught.value.why


def test_jsonl_file_lines_and_what_is_between_them_are_the_whole_file(tmp_path: Path) -> None:
    """A byte order mark and empty lines are handed over in their places, so a file can be written again."""
    content = b'\xef\xbb\xbf\r\n{"a": 1}\r\n \t\n\n{"a": 2} \n\t'
    (tmp_path / "a.jsonl").write_bytes(content)
    parts: list[bytes] = []
    file = JsonlFile(tmp_path / "a.jsonl", on_passed=parts.append)
    for line in file:
        parts.append(line.raw + line.line_end)
    assert b"".join(parts) == content
    assert file.empty_lines == 4
