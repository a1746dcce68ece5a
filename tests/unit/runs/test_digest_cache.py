"""Digests of large files are remembered while the files are unchanged, and never trusted beyond that."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage, file_digest
from codex_ml.runs.digest_cache import CACHE_NAME, DigestCache


class Reader:
    """Computes digests and counts how often a file was read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: Path) -> str:
        """Read the file and note that it was read."""
        self.read.append(path.name)
        return file_digest(path)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a file of weights beside the directory of the runs."""
    (tmp_path / "runs").mkdir()
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def cache(weights: Path, reader: Reader, later_seconds: float = 10.0, **options: object) -> DigestCache:
    """Open the cache of the runs, some seconds from now, for files of any size."""
    settings: dict = {"clock": lambda: time.time() + later_seconds, "smallest_bytes": 1, **options}
    return DigestCache(weights.parent / "runs" / CACHE_NAME, digest=reader, **settings)


def remember(weights: Path) -> Path:
    """Fill the cache and return its file."""
    opened = cache(weights, Reader())
    opened(weights)
    opened.save(Storage())
    return weights.parent / "runs" / CACHE_NAME


def test_digest_cache_unchanged_file_is_read_once(weights: Path) -> None:
    """In one process and in the next; the digest is the one of reading it."""
    reader = Reader()
    first = cache(weights, reader)
    assert first(weights) == first(weights) == file_digest(weights)
    first.save(Storage())
    assert cache(weights, reader)(weights) == file_digest(weights)
    assert reader.read == ["model.safetensors"]


def test_digest_cache_changed_byte_is_noticed(weights: Path) -> None:
    """Same size, new content: the modification time tells."""
    remember(weights)
    weights.write_bytes(b"weighty")
    assert cache(weights, Reader())(weights) == file_digest(weights)


def test_digest_cache_restored_modification_time_is_noticed(weights: Path) -> None:
    """Setting the modification time back does not hide a change: the change time cannot be set."""
    remember(weights)
    before = weights.stat()
    weights.write_bytes(b"weighty")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert cache(weights, Reader())(weights) == file_digest(weights)


def test_digest_cache_replaced_file_is_noticed(weights: Path) -> None:
    """Another file under the same name has another inode."""
    remember(weights)
    other = weights.with_name("other")
    other.write_bytes(b"another")
    other.replace(weights)
    assert cache(weights, Reader())(weights) == file_digest(weights)


def test_digest_cache_link_follows_what_it_leads_to(weights: Path) -> None:
    """A snapshot's link is judged by its blob."""
    link = weights.with_name("link.safetensors")
    link.symlink_to(weights)
    opened = cache(weights, Reader())
    opened(link)
    opened.save(Storage())
    other = weights.with_name("other")
    other.write_bytes(b"another")
    link.unlink()
    link.symlink_to(other)
    assert cache(weights, Reader())(link) == file_digest(other)


def test_digest_cache_file_that_changed_just_now_is_not_remembered(weights: Path) -> None:
    """A second change within one tick of the clock would go unseen."""
    reader = Reader()
    young = cache(weights, reader, later_seconds=0.0)
    young(weights)
    young(weights)
    young.save(Storage())
    assert reader.read == ["model.safetensors"] * 2
    assert not (weights.parent / "runs" / CACHE_NAME).exists()


def test_digest_cache_file_that_changes_while_it_is_read_is_not_remembered(weights: Path) -> None:
    """The digest of a moving file belongs to no fingerprint."""

    class Meddler(Reader):
        def __call__(self, path: Path) -> str:
            digest = super().__call__(path)
            path.write_bytes(b"longer weights")
            return digest

    opened = cache(weights, Meddler())
    opened(weights)
    opened.save(Storage())
    assert not (weights.parent / "runs" / CACHE_NAME).exists()


def test_digest_cache_small_file_is_read_every_time(weights: Path) -> None:
    """Nothing is kept of what costs nothing."""
    reader = Reader()
    opened = cache(weights, reader, smallest_bytes=8)
    opened(weights)
    opened(weights)
    opened.save(Storage())
    assert len(reader.read) == 2
    assert list((weights.parent / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 1}', '{"version": 2, "digests": {}}', '{"version": 1, "digests": []}', b"\xff\xfe"],
)
def test_digest_cache_damaged_file_is_ignored_and_written_anew(weights: Path, content: str | bytes) -> None:
    """A cache is never a reason to stop, nor to believe what it says."""
    file = weights.parent / "runs" / CACHE_NAME
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert remember(weights) == file
    reader = Reader()
    assert cache(weights, reader)(weights) == file_digest(weights)
    assert reader.read == []


def test_digest_cache_damaged_entry_is_ignored(weights: Path) -> None:
    """What is no digest is not passed off as one."""
    file = remember(weights)
    content = json.loads(file.read_text())
    for bad in ("sha256:00", 5, None):
        content["digests"]["../model.safetensors"]["digest"] = bad
        file.write_text(json.dumps(content))
        assert cache(weights, Reader())(weights) == file_digest(weights)


def test_digest_cache_file_others_may_write_is_not_believed(weights: Path) -> None:
    """Another user's hand could have put any digest there."""
    file = remember(weights)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o666)
    reader = Reader()
    cache(weights, reader)(weights)
    assert reader.read == ["model.safetensors"]


def test_digest_cache_save_keeps_what_another_run_wrote_and_drops_what_is_gone(weights: Path) -> None:
    """Two runs that end one after the other both leave what they learnt."""
    second, third = weights.with_name("second"), weights.with_name("third")
    for path in (second, third):
        path.write_bytes(path.name.encode())
    ours, theirs = cache(weights, Reader()), cache(weights, Reader())
    ours(weights)
    theirs(second)
    theirs(third)
    theirs.save(Storage())
    third.unlink()
    ours.save(Storage())
    digests = json.loads((weights.parent / "runs" / CACHE_NAME).read_text())["digests"]
    assert set(digests) == {"../model.safetensors", "../second"}


def test_digest_cache_without_its_directory_or_a_writable_disk_saves_nothing(weights: Path) -> None:
    """A run that was refused leaves no directory behind, and a full disk costs time only."""

    class Full(Storage):
        def write_json(self, path: Path, value: object) -> None:  # noqa: ARG002 - the signature of Storage
            raise OSError(28, "No space left on device", str(path))

    full = cache(weights, Reader())
    full(weights)
    full.save(Full())
    (weights.parent / "runs").rmdir()
    opened = cache(weights, Reader())
    opened(weights)
    opened.save(Storage())
    assert not (weights.parent / "runs").exists()
