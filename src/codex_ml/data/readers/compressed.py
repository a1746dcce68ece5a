"""Compressed files of records, unpacked as a stream: within bounds, to the last byte, or not at all."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

import zstandard

from codex_ml.data.readers.files import ByteStream, DataFile
from codex_ml.data.readers.format_detection import GZIP_MAGIC, ZSTANDARD_MAGIC, look_of_file
from codex_ml.errors import DataError

# Text that is not made to be a bomb packs to a tenth; many equal records to a hundredth.
MAX_RATIO = 200
# Below this the ratio says nothing and harms nobody.
RATIO_COUNTS_FROM_BYTES = 16 << 20
MAX_UNPACKED_BYTES = 1 << 40
# Frames may ask for a window of gigabytes; so much `zstd` itself unpacks without being asked twice.
_MAX_WINDOW_BYTES = 128 << 20
_MOST_AT_ONCE_BYTES = 1 << 20
_FIX_DAMAGED = "get the file once more, and compare its size and digest with those of its source"


class _Gzip:
    """One member of a gzip file (RFC 1952)."""

    name: ClassVar[str] = "gzip"
    packed_bytes: ClassVar[int] = 1 << 16

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self.has_more = False

    @staticmethod
    def begins(packed: bytes) -> bool:
        """Tell whether a member begins with these bytes."""
        return packed.startswith(GZIP_MAGIC)

    @staticmethod
    def without_padding(packed: bytes) -> bytes:
        """Return the bytes after the zeros that may follow a member: tapes pad their blocks with them."""
        return packed.lstrip(b"\x00")

    @property
    def rest(self) -> bytes | None:
        """What came after the end of the member; None before its end."""
        return self._inflater.unused_data if self._inflater.eof else None

    def unpack(self, packed: bytes) -> bytes:
        """Return a bounded part of what the bytes hold; `has_more` says that there is more without any further."""
        unpacked = self._inflater.decompress(self._inflater.unconsumed_tail + packed, _MOST_AT_ONCE_BYTES)
        self.has_more = bool(self._inflater.unconsumed_tail) or len(unpacked) == _MOST_AT_ONCE_BYTES
        return unpacked


class _Zstandard:
    """One frame of a Zstandard file (RFC 8878)."""

    name: ClassVar[str] = "Zstandard"
    # A block of 4 bytes can unpack to 128 KiB, and all that is handed over at once comes back at once: 32 MiB.
    packed_bytes: ClassVar[int] = 1 << 10
    has_more: ClassVar[bool] = False

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()

    @staticmethod
    def begins(packed: bytes) -> bool:
        """Tell whether a frame begins with these bytes; there are frames of 16 kinds that hold notes only."""
        return packed.startswith(ZSTANDARD_MAGIC) or (packed[1:4] == b"\x2a\x4d\x18" and packed[0] >> 4 == 5)

    @staticmethod
    def without_padding(packed: bytes) -> bytes:
        """Return the bytes: there is no padding."""
        return packed

    @property
    def rest(self) -> bytes | None:
        """What came after the end of the frame; None before its end."""
        return self._decompressor.unused_data if self._decompressor.eof else None

    def unpack(self, packed: bytes) -> bytes:
        """Return what the bytes hold."""
        return self._decompressor.decompress(packed)


_KINDS: dict[str, type[_Gzip] | type[_Zstandard]] = {".gz": _Gzip, ".zst": _Zstandard}


class Unpacked:
    """What a compressed file holds, read from the beginning to the end; its members follow each other seamlessly.

    Parameters
    ----------
    file : DataFile
        The packed bytes.
    kind : type
        Unpacks one member.

    Raises
    ------
    DataError
        While it is read: if the file is of another kind, damaged, cut off, has something behind its end, or holds more
        than `MAX_UNPACKED_BYTES` or `MAX_RATIO` times its size.
    """

    def __init__(self, file: DataFile, kind: type[_Gzip] | type[_Zstandard]) -> None:
        self.name = file.name
        self.byte_count = 0
        self._file = file
        self._kind = kind
        self._member: _Gzip | _Zstandard | None = None
        self._seen_members = False
        self._packed = b""
        self._ready = b""
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """Return a maximum number of decompressed bytes, none at the end."""
        while self._position == len(self._ready):
            if not self._member and not self._next_member():
                return b""
            self._ready, self._position = self._unpack(), 0
        begin = self._position
        self._position = min(begin + size, len(self._ready))
        return self._ready[begin : self._position]

    def _next_member(self) -> bool:
        """Begin with the next member; False at the end of the file."""
        packed = self._packed
        while len(packed) < 4 and (more := self._file.read(self._kind.packed_bytes)):
            packed += more
            if self._seen_members:
                packed = self._kind.without_padding(packed)
        if self._seen_members:
            packed = self._kind.without_padding(packed)
        if not packed:
            return False
        if not self._kind.begins(packed):
            raise self._other_kind(packed)
        self._packed, self._member, self._seen_members = packed, self._kind(), True
        return True

    def _unpack(self) -> bytes:
        """Return a part of the member at hand, perhaps nothing."""
        member = self._member
        assert member is not None, "a member was begun"
        packed, self._packed = self._packed, b""
        if not packed and not member.has_more:
            packed = self._file.read(self._kind.packed_bytes)
            if not packed:
                raise self._fault("is cut off", f"the {self._kind.name} archive ends before its end", _FIX_DAMAGED)
        try:
            unpacked = member.unpack(packed)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._fault("is damaged", str(error), _FIX_DAMAGED) from error
        if member.rest is not None and not member.has_more:
            self._packed, self._member = member.rest, None
        self._count(len(unpacked))
        return unpacked

    def _count(self, unpacked_bytes: int) -> None:
        self.byte_count += unpacked_bytes
        allowed = max(RATIO_COUNTS_FROM_BYTES, MAX_RATIO * self._file.byte_count)
        if self.byte_count > min(allowed, MAX_UNPACKED_BYTES):
            raise self._fault(
                "holds far more than it should",
                f"its first {self._file.byte_count:,} bytes unpack to more than {self.byte_count:,}; allowed are "
                f"{MAX_RATIO} times as many and {MAX_UNPACKED_BYTES:,} bytes: it may be made to fill disks",
                "if you know what is in it, unpack it yourself and name the file that comes out",
            )

    def _other_kind(self, packed: bytes) -> DataError:
        if self._seen_members:
            why = f"{len(packed)} or more bytes follow the end of the {self._kind.name} archive"
            return self._fault("has something behind its end", why, _FIX_DAMAGED)
        look = look_of_file(packed)
        named = f"this looks like {look.name}" if look is not None else "it does not begin like one"
        ending = "" if look is not None else "; if it is plain text, take the ending off its name"
        return DataError(
            f"{self.name}: this is no {self._kind.name} archive: {named}",
            why=f"by its name it is one (ending .{'gz' if self._kind is _Gzip else 'zst'})",
            fix=f"give it the ending of what it is{ending}",
            code="DATA_NOT_AN_ARCHIVE",
        )

    def _fault(self, what: str, why: str, fix: str) -> DataError:
        return DataError(
            f"{self.name} {what}",
            why=f"{why} (byte {self._file.byte_count:,} of the file)",
            fix=fix,
            code="DATA_ARCHIVE_UNREADABLE",
        )


def unpacked(path: Path, file: DataFile) -> ByteStream:
    """Return what a file holds: unpacked where the ending of its name says that it is packed, else the file itself."""
    kind = _KINDS.get(path.suffix.lower())
    return file if kind is None else Unpacked(file, kind)
