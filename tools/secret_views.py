"""Views of a file for the secret scan: as it is, without NUL bytes, unpacked, decoded from base64.

A key in a UTF-16 or UTF-32 file has NUL bytes between its characters. A key in a gzip, bzip2, xz, zstd or zip file is
not in the bytes of the file at all. A file that cannot be unpacked within the limits is an error, because it was not
scanned.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

from zstandard import ZstdDecompressor, ZstdError

# Unpacked files in the repository are far smaller; a larger one may be a decompression bomb.
MOST_UNPACKED_BYTES = 64 * 2**20
MOST_NESTING = 3
MOST_MEMBERS = 5000
# Base64 of "-----BEGIN ", as in PEM files in Kubernetes and CI variables; lines may be wrapped and indented.
_WRAPPED_PEM = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]+(?:(?:\\n|\s)+[A-Za-z0-9+/]{8,}={0,2})*={0,2}")
# RuntimeError: a member is encrypted, or its compression is not known.
_UNPACKING_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, RuntimeError, ZstdError)


class NotScannedError(Exception):
    """A file cannot be unpacked within the bounds, so it cannot be scanned."""


def views_of(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each view of a file; ``FILE!MEMBER`` is a member of an archive.

    Raises
    ------
    NotScannedError
        If an archive is broken, encrypted, nested too deeply, or too large when unpacked.
    """
    yield from _views(data, name, MOST_NESTING)


def _views(data: bytes, name: str, nesting: int) -> Iterator[tuple[str, str]]:
    # Latin-1 gives every byte a character: a key in a binary file is found too.
    yield name, data.decode("latin-1")
    if b"\0" in data:
        # UTF-16 and UTF-32, in either byte order and with or without a byte order mark.
        yield name, data.replace(b"\0", b"").decode("latin-1")
    for match in _WRAPPED_PEM.finditer(data.replace(b"\0", b"")):
        encoded = re.sub(rb"\\n|\s|=", b"", match[0])
        try:
            # Of a truncated run, the complete groups of four characters are decoded.
            yield name, base64.b64decode(encoded[: len(encoded) // 4 * 4]).decode("latin-1")
        except binascii.Error:
            continue
    for member, unpacked in _members(data, name):
        if not nesting:
            raise NotScannedError(f"{name}: not scanned: archives in archives, more than {MOST_NESTING} deep")
        yield from _views(unpacked, member, nesting - 1)


def _members(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        if data.startswith(b"\x1f\x8b\x08"):
            yield f"{name}!", _gunzip(data, name)
        elif data.startswith(b"BZh"):
            yield f"{name}!", _bounded(partial(bz2.open, io.BytesIO(data)), name)
        elif data.startswith(b"\xfd7zXZ\0"):
            yield f"{name}!", _bounded(partial(lzma.open, io.BytesIO(data)), name)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            yield f"{name}!", _bounded(partial(ZstdDecompressor().stream_reader, data, read_across_frames=True), name)
        elif data.startswith(b"PK\x03\x04"):
            yield from _unzip(data, name)
    except _UNPACKING_ERRORS as error:
        raise NotScannedError(f"{name}: not scanned: it cannot be unpacked ({error})") from error


def _gunzip(data: bytes, name: str) -> bytes:
    parts = []
    left = MOST_UNPACKED_BYTES
    while data.startswith(b"\x1f\x8b"):
        decompressor = zlib.decompressobj(wbits=31)
        part = decompressor.decompress(data, left + 1)
        left -= len(part)
        if left < 0:
            raise _too_large(name)
        if not decompressor.eof:
            raise EOFError("it is cut short")
        parts.append(part)
        data = decompressor.unused_data
    return b"".join(parts)


def _bounded(open_file: Callable[[], IO[Any]], name: str) -> bytes:
    with open_file() as handle:
        data = handle.read(MOST_UNPACKED_BYTES + 1)
    if len(data) > MOST_UNPACKED_BYTES:
        raise _too_large(name)
    return data


def _unzip(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise NotScannedError(f"{name}: not scanned: {len(members)} members (at most {MOST_MEMBERS})")
        left = MOST_UNPACKED_BYTES
        for member in members:
            unpacked = _bounded(partial(archive.open, member), name)
            left -= len(unpacked)
            if left < 0:
                raise _too_large(name)
            # Spaces separate the fields of the list of allowed secrets.
            yield f"{name}!{member.filename.replace(' ', '_')}", unpacked


def _too_large(name: str) -> NotScannedError:
    return NotScannedError(f"{name}: not scanned: more than {MOST_UNPACKED_BYTES // 2**20} MiB when unpacked")
