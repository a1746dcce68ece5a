"""Make files of formats other than JSON Lines: tables, archives, and files with a wrong suffix."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet
import zstandard
from tests.unit.data.malformed_case import END, ROW, Case


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.jsonl", ROW)
    return content.getvalue()


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("data.jsonl")
        entry.size = len(ROW)
        archive.addfile(entry, io.BytesIO(ROW))
    return content.getvalue()


def other_formats() -> Iterator[Case]:
    """Yield files of other formats with the suffix of JSON Lines; the reader recognizes and refuses them."""
    rows = [{"prompt": "a", "completion": "b"}] * 2
    for name, content, look in (
        ("array", json.dumps(rows).encode(), "a JSON array"),
        ("array-lines", b"[\n" + ROW + b",\n" + ROW + b"\n]\n", "a JSON array"),
        ("array-of-scalars", b"[1, 2]\n", "a JSON array"),
        ("brackets", b"[" * 1_000_000, "a JSON array"),
        ("pretty", json.dumps(rows[0], indent=2).encode(), "pretty-printed JSON"),
        ("pretty-many", b"\n".join(json.dumps(row, indent=4).encode() for row in rows), "pretty-printed JSON"),
        ("pretty-mark", b"\xef\xbb\xbf" + json.dumps(rows[0], indent=1).encode(), "pretty-printed JSON"),
        ("pretty-half", b'{"prompt": "a",\n "completion": "b"}\n', "pretty-printed JSON"),
        ("html", b"<!doctype html>\n<html><body>404</body></html>", "an HTML page"),
        ("html-login", b"\n\n<HTML>\n<HEAD>", "an HTML page"),
        ("xml", b'<?xml version="1.0"?><rows/>', "XML"),
        ("xml-bare", b"<rows><row/></rows>", "XML"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        ("gzip", gzip.compress(ROW, mtime=0), "a gzip archive"),
        ("zstandard", zstandard.compress(ROW), "a Zstandard archive"),
        ("xz", lzma.compress(ROW), "an xz archive"),
        ("bzip2", bz2.compress(ROW), "a bzip2 archive"),
        ("zip", _zip(), "a zip archive"),
        ("tar", _tar(), "a tar archive"),
        ("parquet", _parquet(rows), "a Parquet file"),
        ("arrow", _arrow(rows, pa.ipc.new_file), "an Arrow file"),
        ("arrow-stream", _arrow(rows, pa.ipc.new_stream), "an Arrow stream"),
        ("csv", b"prompt,completion\na,b\nc,d\n", "CSV"),
        ("tsv", b"prompt\tcompletion\na\tb\n", "a table with tabs"),
        ("sqlite", b"SQLite format 3\x00" + b"\x00" * 84, "an SQLite database"),
        ("pickle", pickle.dumps(rows), "a Python pickle"),
        ("numpy", b"\x93NUMPY\x01\x00", "a NumPy array"),
        ("pdf", b"%PDF-1.7\n", "a PDF document"),
        ("png", b"\x89PNG\r\n\x1a\n", "a picture"),
        ("program", b"\x7fELF\x02\x01\x01", "a program"),
        ("markdown", b"```json\n" + ROW + b"\n```\n", "Markdown"),
        ("zeros", b"\x00" * 4096, "binary data"),
        ("key", b"-----BEGIN PRIVATE KEY-----\n", "a key or certificate"),
    ):
        yield Case(f"{name}.jsonl", content, refused=f"looks like {look}")
        yield Case(f"{name}.jsonl.gz", gzip.compress(content, mtime=0), refused=f"looks like {look}")


def _parquet(rows: list[dict[str, object]]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), content)
    return content.getvalue()


def _arrow(rows: list[dict[str, object]], new_writer: Callable[..., object]) -> bytes:
    table, content = pa.Table.from_pylist(rows), io.BytesIO()
    with new_writer(content, table.schema) as writer:  # type: ignore[attr-defined]
        writer.write_table(table)
    return content.getvalue()


def tables() -> Iterator[Case]:
    """Yield Parquet and Arrow files: valid, with awkward rows, truncated and garbled."""
    rows: list[dict[str, object]] = [{"prompt": "a", "completion": "b"}] * 5
    awkward: list[dict[str, object]] = [
        {"prompt": "a", "completion": "b", "n": 1.5, "blob": None},
        {"prompt": "a", "completion": "b", "n": float("nan"), "blob": None},
        {"prompt": "a", "completion": "b", "n": None, "blob": b"\x00"},
        {"prompt": None, "completion": "b", "n": None, "blob": None},
    ]
    bad = {2: "bad_number", 3: "bad_row", 4: "bad_shape"}
    for ending, write in (
        ("parquet", _parquet),
        ("arrow", lambda table: _arrow(table, pa.ipc.new_file)),
        ("arrow", lambda table: _arrow(table, pa.ipc.new_stream)),
    ):
        content = write(rows)
        yield Case(f"table.{ending}", content, good=5)
        yield Case(f"awkward.{ending}", write(awkward), good=1, bad=bad)
        yield Case(f"half.{ending}", content[: len(content) // 2], refused="cannot be read")
        yield Case(f"head.{ending}", content[:10], refused="cannot be read")
        yield Case(f"garbled.{ending}", content[:12] + b"\xff" * (len(content) - 12), refused="cannot be read")
        yield Case(f"empty.{ending}", b"", refused="holds no record")
        yield Case(f"lines.{ending}", ROW + END, refused="is no (Parquet|Arrow) file")
        yield Case(f"text.{ending}", b"a,b\n1,2\n", refused="it looks like CSV")


def delimited() -> Iterator[Case]:
    """Yield tables with commas and tabs."""
    header = b"prompt,completion\n"
    yield Case("plain.csv", header + b"a,b\n" * 3, good=3)
    yield Case("quoted.csv", header + b'"a,\n""x""",b\n', good=1)
    yield Case("pairs.csv", b"\xef\xbb\xbf" + header.replace(b"\n", b"\r\n") + b"a,b\r\n", good=1)
    yield Case("index.csv", b",prompt,completion\n0,a,b\n", good=1)
    yield Case("empty-rows.csv", header + b"\n\na,b\n\n", good=1, empty=3)
    yield Case("cells.csv", header + b"a\na,b\na,b,c\n", good=1, bad={2: "bad_row", 4: "bad_row"})
    yield Case("bytes.csv", header + b"\xff,b\na,b\n", good=1, bad={2: "bad_encoding"})
    yield Case("zero.csv", header + b"a\x00,b\na,b\n", good=1, bad={2: "bad_encoding"})
    yield Case("after-quote.csv", header + b'"a"x,b\na,b\n', good=1, bad={2: "bad_row"})
    yield Case("no-completion.csv", header + b"a,\na,b\n", good=1, bad={2: "bad_shape"})
    yield Case("open-quote.csv", header + b'a,b\n"a,b\na,b\n', refused="a quote is opened in this row")
    yield Case("doubled.csv", b"prompt,prompt\na,b\n", refused="two columns have the name")
    yield Case("semicolons.csv", b"prompt;completion\na;b\n", refused="separated by semicolons")
    yield Case("utf16.csv", header.decode().encode("utf-16") + b"a\x00", refused="looks like UTF-16")
    yield Case("header.csv", header, refused="holds no record")
    yield Case("empty.csv", b"", refused="holds no record")
    yield Case("json.csv", b'{"prompt": "a"}\n', refused="looks like JSON Lines")
    yield Case("plain.tsv", b"prompt\tcompletion\na,\tb\n", good=1)
    yield Case("cells.tsv", b"prompt\tcompletion\na\na\tb\n", good=1, bad={2: "bad_row"})
