"""Bytes packed by the ending of a name: what comes out unpacks to what went in, and is the same every time."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import zstandard

from codex_ml.data.dataset import packer_for
from codex_ml.data.readers.registry import open_records

PIECES = [b'{"text": "one"}\n', b"", b"\n", b'{"text": "' + b"x" * 300_000 + b'"}']


def _packed(name: str) -> bytes:
    packer = packer_for(Path(name))
    return b"".join([*(packer.compress(piece) for piece in PIECES), packer.flush()])


@pytest.mark.parametrize(
    ("name", "unpack"),
    [
        ("a.jsonl", bytes),
        ("a", bytes),
        ("a.jsonl.GZ", gzip.decompress),
        ("a.jsonl.zst", lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed)),
    ],
)
def test_packer_for_ending_gives_what_unpacks_to_the_same(name, unpack) -> None:
    """Plain names are not packed; whatever the pieces are, nothing is lost between them."""
    packed = _packed(name)
    assert unpack(packed) == b"".join(PIECES)
    assert (len(packed) < 10_000) == (name.lower().endswith((".gz", ".zst")))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "b.jsonl.zst"])
def test_packer_for_same_bytes_gives_the_same_file_that_the_reader_takes(name: str, tmp_path: Path) -> None:
    """Neither time nor name stands in an archive, so its digest says whether two hold the same."""
    packed = _packed(name)
    assert hashlib.sha256(_packed(f"other-{name}")).digest() == hashlib.sha256(packed).digest()
    (tmp_path / name).write_bytes(packed)
    lines = list(open_records(tmp_path / name).raw_lines())
    assert [raw for _, _, raw, _ in lines] == [PIECES[0][:-1], PIECES[3]]
