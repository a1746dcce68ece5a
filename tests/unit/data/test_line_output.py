"""A file written once: its bytes, packed or plain, its size and digest, and a disk that takes little at a time."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import zstandard

from codex_ml.data.line_output import LineOutput
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage, file_digest

_LINES = [b'{"text": "%0200d"}\n' % number for number in range(5000)]


class _SlowDisk(Storage):
    """Takes at most a thousand bytes at once."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return super().write(descriptor, memoryview(data)[:1000])


@pytest.mark.parametrize(
    ("name", "unpack"),
    [
        ("a.jsonl", bytes),
        ("a.JSONL.GZ", gzip.decompress),
        ("a.jsonl.zst", lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed)),
    ],
)
def test_line_output_any_ending_holds_the_lines_and_knows_itself(tmp_path: Path, name: str, unpack) -> None:
    """Packed as the name says; size and digest are those of the file; the same lines give the same bytes; private."""
    digests = []
    for number in range(2):
        path = tmp_path / f"staged-{number}"
        with LineOutput(path, tmp_path / name, _SlowDisk()) as output:
            for line in _LINES:
                output.write(line)
            digests.append(output.finish())
        assert unpack(path.read_bytes()) == b"".join(_LINES)
        assert output.byte_count == path.stat().st_size
        assert digests[-1] == file_digest(path)
        assert path.stat().st_mode & 0o777 == 0o600
    assert digests[0] == digests[1]


def test_line_output_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """The name while it is written belongs to nobody else."""
    (tmp_path / "staged").write_bytes(b"mine")
    with pytest.raises(FileExistsError), LineOutput(tmp_path / "staged", tmp_path / "a.jsonl", Storage()):
        pass
    assert (tmp_path / "staged").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_line_output_that_our_own_reader_would_refuse_is_refused(tmp_path: Path, name: str) -> None:
    """Equal lines by the megabyte pack like a bomb; a file that nobody can read again is no output."""
    with LineOutput(tmp_path / "staged", tmp_path / name, Storage()) as output:
        for _ in range(17 * 1024):
            output.write(b"x" * 1023 + b"\n")
        with pytest.raises(DataError, match=r"are not read again") as caught:
            output.finish()
    assert ".jsonl" in caught.value.fix


def test_line_output_finished_is_forced_to_the_disk(tmp_path: Path) -> None:
    """All that was written, before the digest is given."""
    forced: list[int] = []

    class Recording(Storage):
        def fsync(self, descriptor: int) -> None:
            forced.append(os.fstat(descriptor).st_size)

    with LineOutput(tmp_path / "staged", tmp_path / "a.jsonl", Recording()) as output:
        output.write(b"x" * 10)
        output.finish()
    assert forced == [10]
