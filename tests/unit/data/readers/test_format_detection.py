"""Files and lines of other formats are called what they look like."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile

import pytest
import zstandard

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.format_detection import look_of_file
from codex_ml.data.readers.json import parse_object

ROW = '{"prompt": "a", "completion": "é"}\n'
PRETTY = json.dumps({"prompt": "a", "completion": ["b"]}, indent=2)


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.jsonl", ROW)
    return content.getvalue()


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("data.jsonl")
        entry.size = len(ROW.encode())
        archive.addfile(entry, io.BytesIO(ROW.encode()))
    return content.getvalue()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ROW.encode("utf-16"), "UTF-16 text"),
        (ROW.encode("utf-16-le"), "UTF-16 text"),
        (ROW.encode("utf-16-be"), "UTF-16 text"),
        (ROW.encode("utf-32"), "UTF-32 text"),
        (ROW.encode("utf-32-le"), "UTF-32 text"),
        (ROW.encode("utf-32-be"), "UTF-32 text"),
        (gzip.compress(ROW.encode(), mtime=0), "a gzip archive"),
        (zstandard.compress(ROW.encode()), "a Zstandard archive"),
        (lzma.compress(ROW.encode()), "an xz archive"),
        (bz2.compress(ROW.encode()), "a bzip2 archive"),
        (_zip(), "a zip archive"),
        (_tar(), "a tar archive"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"ARROW1\x00\x00", "an Arrow file"),
        (b"\xff\xff\xff\xff\x70\x00\x00\x00", "an Arrow stream"),
        (b"SQLite format 3\x00\x10\x00", "an SQLite database"),
        (pickle.dumps([1]), "a Python pickle"),
        (b"\x00" * 100, "binary data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html><head></head></html>", "an HTML page"),
        (b"\n  <HTML lang=en>", "an HTML page"),
        (b'<?xml version="1.0"?>\n<a/>', "XML"),
        (b'<rows>\n<row n="1"/></rows>', "XML"),
        (b"```json\n" + ROW.encode(), "Markdown"),
        (b'[{"a": 1}]', "a JSON array"),
        (b'\xef\xbb\xbf\n[\n{"a": 1}]', "a JSON array"),
        (PRETTY.encode(), "pretty-printed JSON"),
        (b'{"a": 1,\n "b": "x"}\n{"a": 1,\n "b": "x"}\n', "pretty-printed JSON"),
        (b'{"a": 1}\r{"a": 2}\r', "text with the line ends of an old Mac (\\r)"),
        (b"prompt,completion\na,b\n", "CSV"),
        (b'"prompt","completion"\r\n"a","b"\r\n', "CSV"),
        (b"prompt\tcompletion\na, b\tc\n", "a table with tabs"),
    ],
    # Archives hold the time at which they were made, and each process of a test run has to see the same names.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_look_of_file_other_format_is_named_with_a_remedy(head: bytes, name: str) -> None:
    """Name and remedy; nothing of the content."""
    look = look_of_file(head)
    assert look is not None
    assert look.name == name
    assert look.fix


@pytest.mark.parametrize(
    "head",
    [
        ROW.encode(),
        b"\xef\xbb\xbf" + ROW.encode(),
        b"\r\n\n  \n" + ROW.encode() * 2,
        b'{"a": "\r"}\n',
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'{"a": 1',
        b"nonsense\n" + ROW.encode(),
        b'2024-01-01, 12:00 INFO {"a": 1}\n2024-01-01, 12:00 INFO {"a": 1}\n',
        b'{"a": "\x00"}\n',
        b"",
        b"{",
        b'"a"\n"b"\n',
        b'{"a":' * 100_000,
    ],
)
def test_look_of_file_lines_of_json_or_nearly_so_are_read_line_by_line(head: bytes) -> None:
    """What is wrong with single lines is said of them."""
    look = look_of_file(head)
    assert look is None or (look.name == "pretty-printed JSON" and head == b"{")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("{'prompt': 'SECRET'}", "Python dict"),
        ('{"a": None, "b": "SECRET"}', "looks like Python"),
        ('{"a": True}', "looks like Python"),
        ("{\"a\": 'SECRET'}", "looks like Python"),
        ('{"a": "SECRET",}', "no comma before a closing bracket"),
        ('{"a": ["SECRET",]}', "no comma before a closing bracket"),
        ('{"a": "SECRET"},', "line ends with a comma"),
        ('{"a": 1}{"a": "SECRET"}', "several objects"),
        ('{"a": 1} {"a": "SECRET"}', "several objects"),
        ("// SECRET", "no comments"),
        ('{"a": 1 /* SECRET */}', "no comments"),
        ("{SECRET: 1}", "JSON5"),
        ('INFO SECRET {"a": 1}', "there is text before the object"),
        ('\ufeff{"a": "SECRET"}', "byte order mark"),
        ('\x00\x00{"a": "SECRET"}', "NUL bytes"),
        ('{"a": "SECRET', "cut off"),
        ('{"a": 1, "SECRET": ', "cut off"),
        ('{"a": 1,, "SECRET": 2}', "two commas"),
    ],
)
def test_parse_object_line_that_looks_like_something_else_says_so(line: str, hint: str) -> None:
    """The hint stands behind the parser's own words, and holds no content."""
    with pytest.raises(LineFault, match=hint) as caught:
        parse_object(line.encode())
    assert caught.value.reason == "bad_json"
    assert "SECRET" not in caught.value.text
