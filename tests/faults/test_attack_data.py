"""Data files from a stranger: endless lines, archives, pipes, bombs of depth and of keys; refused in bounded memory."""

from __future__ import annotations

import gzip
import json
import os
import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, JsonlFile
from codex_ml.data.readers.registry import open_records
from codex_ml.errors import DataError

pytestmark = pytest.mark.timeout(300)
# A guard against work that grows without bound, not a measurement.
MOST_CPU_SECONDS = 60.0
ROW = b'{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[bytes], str]:
    """Return what reads a file of some bytes, which must be refused in bounded time, and gives the error."""

    def refused(content: bytes) -> str:
        file = tmp_path / "data.jsonl"
        file.write_bytes(content)
        started = time.process_time()
        with pytest.raises(DataError) as caught:
            list(JsonlFile(file))
        assert time.process_time() - started < MOST_CPU_SECONDS
        return caught.value.block()

    return refused


def test_gzip_bomb_under_another_name_is_not_unpacked(refusal):
    """A thousand times as much would come out of it."""
    assert "gzip" in refusal(gzip.compress(b"\0" * 50_000_000))


@pytest.mark.parametrize(
    "magic", [b"PK\x03\x04", b"PAR1", b"\x80\x04\x95", b"\x93NUMPY", b"\xfd7zXZ\0", b"BZh9", b"\x28\xb5\x2f\xfd"]
)
def test_other_format_under_the_name_is_refused(refusal, magic):
    """Archives, pickles and arrays are no lines of JSON."""
    refusal(magic + b"\0" * 1000)


def test_line_of_a_gigabyte_is_refused_without_keeping_it(tmp_path):
    """A sparse file of one line: named with its line, in the memory of one block."""
    file = tmp_path / "data.jsonl"
    with file.open("wb") as handle:
        handle.write(ROW)
        handle.truncate(300_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"data\.jsonl:2: the line is longer than"):
            list(JsonlFile(file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_LINE_BYTES


@pytest.mark.slow
def test_line_of_a_terabyte_is_given_up(tmp_path):
    """Reading it to its end would take an hour."""
    file = tmp_path / "data.jsonl"
    with file.open("wb") as handle:
        handle.write(ROW)
        handle.truncate(1 << 40)
    with pytest.raises(DataError, match=r"data\.jsonl: the line at byte 35 is longer than"):
        list(JsonlFile(file))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_data_that_is_no_file_is_refused(tmp_path, make):
    """A pipe is not waited for, a device not read."""
    make(tmp_path / "data.jsonl")
    with pytest.raises(DataError, match=r"data\.jsonl is"):
        list(JsonlFile(tmp_path / "data.jsonl"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[" * 1_000_000, "nested deeper"),
        (b'{"a": ' * 200_000 + b"1" + b"}" * 200_000, "nested deeper"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "data.jsonl:2"),
        (b'{"a": 1' + b"0" * 400 + b".5}", "data.jsonl:2"),
        (b'{"a": 1e999999}', "too large"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\x00"}', "JSON"),
        (b"{" + b", ".join(b'"k%d": 1' % n for n in range(200_000)) + b"}", ""),
    ],
    ids=[
        *("lists", "objects", "hundred", "integer", "float", "exponent", "nan", "infinity", "doubled", "half"),
        *("bytes", "nul", "keys"),
    ],
)
def test_line_that_is_a_bomb_is_refused_or_harmless(tmp_path, line, words):
    """Depth, numbers and text that no JSON has are named by line; many keys are only many."""
    file = tmp_path / "data.jsonl"
    file.write_bytes(ROW + line + b"\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    started = time.process_time()
    if words:
        with pytest.raises(DataError) as caught:
            list(JsonlFile(file))
        assert words in caught.value.block()
    else:
        assert len(list(JsonlFile(file))) == 2
    assert time.process_time() - started < MOST_CPU_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_keys_that_collide_in_a_hash_table_take_no_longer(tmp_path):
    """Python salts the hashes of text; whole numbers as text are spread too."""
    file = tmp_path / "data.jsonl"
    row = json.dumps({str(number << 61): number for number in range(50_000)}).encode()
    file.write_bytes(row + b"\n")
    started = time.process_time()
    assert len(list(JsonlFile(file))) == 1
    assert time.process_time() - started < MOST_CPU_SECONDS


@pytest.mark.parametrize("is_doubled", [False, True])
def test_header_of_two_hundred_thousand_columns_takes_linear_time(is_doubled, tmp_path):
    """Comparing each name with every other took five minutes for this header."""
    names = [f"column_{number}" for number in range(200_000)] + ["column_7"] * is_doubled
    file = tmp_path / "wide.csv"
    file.write_text(",".join(names) + "\n" + ",".join("x" * len(names)) + "\n")
    started = time.process_time()
    if is_doubled:
        with pytest.raises(DataError, match="two columns have the name 'column_7'"):
            list(open_records(file).raw_lines())
    else:
        assert len(list(open_records(file).raw_lines())) == 1
    assert time.process_time() - started < MOST_CPU_SECONDS
