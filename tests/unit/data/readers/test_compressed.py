"""Packed JSON Lines: unpacked as a stream, within bounds, whole or refused."""

from __future__ import annotations

import gzip
import hashlib
import re
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from codex_ml.data.readers.compressed import RATIO_COUNTS_FROM_BYTES
from codex_ml.data.readers.jsonl import JsonlFile
from codex_ml.errors import DataError

Write = Callable[..., Path]
ROWS = b"".join(b'{"text": "row %d"}\n' % number for number in range(3000))
PACK = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor(write_checksum=True).compress}
KINDS = sorted(PACK)


@pytest.mark.parametrize("kind", KINDS)
def test_jsonl_file_packed_gives_the_lines_of_what_it_holds(write_jsonl: Write, kind: str) -> None:
    """Lines and offsets are those of the unpacked file, digest and size those of the file as it lies."""
    packed = PACK[kind](ROWS)
    file = JsonlFile(write_jsonl(packed, f"data.jsonl.{kind}"))
    lines = list(file)
    assert [line.line_number for line in lines] == list(range(1, 3001))
    assert all(ROWS[line.offset : line.offset + len(line.raw)] == line.raw for line in lines)
    assert file.byte_count == len(packed)
    assert file.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"


@pytest.mark.parametrize("kind", KINDS)
def test_jsonl_file_archives_behind_each_other_are_one_file(write_jsonl: Write, kind: str) -> None:
    """Members may be cut in the middle of a line, and some may hold nothing."""
    pack = PACK[kind]
    packed = pack(ROWS[:1000]) + pack(b"") + pack(ROWS[1000:])
    assert len(list(JsonlFile(write_jsonl(packed, f"data.jsonl.{kind}")))) == 3000


def test_jsonl_file_zeros_behind_gzip_and_notes_in_zstandard_are_passed_over(write_jsonl: Write) -> None:
    """Tapes fill their blocks with zeros; a skippable frame holds no data."""
    path = write_jsonl(gzip.compress(ROWS) + b"\x00" * 200_000, "data.jsonl.gz")
    assert len(list(JsonlFile(path))) == 3000
    note = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    assert len(list(JsonlFile(write_jsonl(note + zstandard.compress(ROWS) + note, "data.jsonl.zst")))) == 3000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left_off", [1, 5, 100])
def test_jsonl_file_archive_that_is_cut_off_is_refused(write_jsonl: Write, kind: str, left_off: int) -> None:
    """However few bytes are missing: the lines before them are no whole file."""
    with pytest.raises(DataError, match=rf"data\.jsonl\.{kind} is cut off"):
        list(JsonlFile(write_jsonl(PACK[kind](ROWS)[:-left_off], f"data.jsonl.{kind}")))


@pytest.mark.parametrize("kind", KINDS)
def test_jsonl_file_damage_and_garbage_in_an_archive_are_refused(write_jsonl: Write, kind: str) -> None:
    """A flipped byte, something behind the end, and another kind under the name; nothing is repaired."""
    packed = bytearray(PACK[kind](ROWS))
    packed[len(packed) // 2] ^= 0xFF
    other = PACK[KINDS[1 - KINDS.index(kind)]](ROWS)
    for content, words in (
        (bytes(packed), "damaged|not valid|not UTF-8|cut off"),
        (PACK[kind](ROWS) + b"garbage", "has something behind its end"),
        (PACK[kind](ROWS) + ROWS, "has something behind its end"),
        (ROWS, "is no (gzip|Zstandard) archive: it does"),
        (other, "is no (gzip|Zstandard) archive: this looks like a"),
        (b"", "holds no record"),
        (PACK[kind](b""), "holds no record"),
        (PACK[kind](PACK[kind](ROWS)), "looks like a (gzip|Zstandard) archive"),
    ):
        with pytest.raises(DataError) as caught:
            list(JsonlFile(write_jsonl(content, f"data.jsonl.{kind}")))
        assert re.search(words, caught.value.what)


def test_jsonl_file_flipped_checksum_is_noticed_after_the_last_line(write_jsonl: Write) -> None:
    """All lines are sound then, and the file is not."""
    packed = gzip.compress(ROWS)
    with pytest.raises(DataError, match="is damaged"):
        list(JsonlFile(write_jsonl(packed[:-8] + b"\x00\x00\x00\x01" + packed[-4:], "data.jsonl.gz")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [b" " * 99 + b"\n", b" ", ROWS[:18]])
def test_jsonl_file_bomb_is_given_up_early_and_in_bounded_memory(write_jsonl: Write, kind: str, unit: bytes) -> None:
    """Far more than it should hold, as empty lines, as one line, as records: not unpacked to its end."""
    path = write_jsonl(PACK[kind](unit * (60_000_000 // len(unit))), f"data.jsonl.{kind}")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passed: Counter[str] = Counter()

    def read_all() -> None:
        for _, _, line, line_end in JsonlFile(path, on_passed=lambda line: passed.update(bytes=len(line))).raw_lines():
            passed.update(bytes=len(line + line_end) if isinstance(line, bytes) else 0)

    with pytest.raises(DataError, match="holds far more than it should"):
        read_all()
    assert passed["bytes"] <= RATIO_COUNTS_FROM_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 150 << 10


def test_jsonl_file_window_of_gigabytes_is_refused(write_jsonl: Write) -> None:
    """What unpacks only with gigabytes of memory says so in its header."""
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(DataError, match="damaged") as caught:
        list(JsonlFile(write_jsonl(compressor.compress(ROWS) + compressor.flush(), "data.jsonl.zst")))
    assert "memory" in caught.value.why
