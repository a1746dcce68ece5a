"""The counterpart of the compressed reader: bytes packed as a stream, as the ending of a file's name asks for."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol

import zstandard


class Packer(Protocol):
    """Takes bytes from the beginning to the end and gives what is to be written for them."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be written by now, perhaps nothing."""
        ...

    def flush(self) -> bytes:
        """Return the rest; nothing can be added any more."""
        ...


class _Plain:
    """Packs nothing."""

    def compress(self, data: bytes, /) -> bytes:
        """Return the bytes as they are."""
        return data

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


def packer_for(path: Path) -> Packer:
    """Return what packs for a name in ``.gz`` or ``.zst``; the same bytes always give the same file."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        # Written this way a member names no file and no time.
        return zlib.compressobj(wbits=31)
    if suffix == ".zst":
        return zstandard.ZstdCompressor().compressobj()
    return _Plain()
