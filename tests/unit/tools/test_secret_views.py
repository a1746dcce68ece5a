"""The views of a file that the secret scan searches."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from zstandard import ZstdCompressor

from secret_views import MOST_NESTING, MOST_UNPACKED_BYTES, NotScannedError, views_of

TEXT = "one\ntwo WORD three\n"


def zipped(name: str, data: bytes) -> bytes:
    """Return a zip archive with one member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    """Return a compressed tar archive with one member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (TEXT.encode(), "f"),
        (TEXT.encode("utf-16"), "f"),
        (TEXT.encode("utf-16-be"), "f"),
        (TEXT.encode("utf-32-le"), "f"),
        (gzip.compress(TEXT.encode()), "f!"),
        (gzip.compress(b"a\n") + gzip.compress(TEXT.encode()), "f!"),
        (gzip.compress(TEXT.encode("utf-16")), "f!"),
        (bz2.compress(TEXT.encode()), "f!"),
        (lzma.compress(TEXT.encode()), "f!"),
        (ZstdCompressor().compress(TEXT.encode()), "f!"),
        (zipped("a b.txt", TEXT.encode()), "f!a_b.txt"),
        (zipped("a.gz", gzip.compress(TEXT.encode())), "f!a.gz!"),
        (tarred("a.txt", TEXT.encode()), "f!"),
    ],
    ids=[
        "plain",
        "UTF-16",
        "UTF-16-BE",
        "UTF-32",
        "gzip",
        "two gzip members",
        "UTF-16 in gzip",
        "bzip2",
        "xz",
        "zstd",
        "zip",
        "gzip in zip",
        "tar.gz",
    ],
)
def test_views_of_encoded_text_shows_it(data: bytes, place: str) -> None:
    """One of the views contains the text, under the name of its place."""
    assert place in {name for name, text in views_of(data, "f") if "two WORD three" in text}


@pytest.mark.parametrize("wrapped", [False, True], ids=["one line", "wrapped and indented"])
def test_views_of_base64_pem_shows_its_begin_line(wrapped: bool) -> None:
    """Kubernetes secrets store PEM files in this form."""
    encoded = base64.b64encode(b"-----BEGIN A THING-----\n" + b"abcdefgh" * 20 + b"\n-----END A THING-----\n").decode()
    if wrapped:
        encoded = "\n    ".join(encoded[start : start + 64] for start in range(0, len(encoded), 64))
    texts = [text for _, text in views_of(f"tls.key: {encoded}\nother: 1\n".encode(), "f")]
    assert any("-----BEGIN A THING-----" in text and "-----END A THING-----" in text for text in texts)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(TEXT.encode())[:-9], "cannot be unpacked"),
        (zipped("a", TEXT.encode())[:-5], "cannot be unpacked"),
        (lzma.compress(TEXT.encode())[:-20], "cannot be unpacked"),
        (gzip.compress(bytes(MOST_UNPACKED_BYTES + 1)), "MiB when unpacked"),
        (zipped("a", bytes(MOST_UNPACKED_BYTES + 1)), "MiB when unpacked"),
    ],
    ids=["cut gzip", "cut zip", "cut xz", "gzip bomb", "zip bomb"],
)
def test_views_of_what_cannot_be_unpacked_is_an_error(data: bytes, words: str) -> None:
    """A broken or oversized archive cannot be scanned."""
    with pytest.raises(NotScannedError, match=words):
        list(views_of(data, "f"))


def test_views_of_nested_archives_ends() -> None:
    """The nesting depth has a limit."""
    data = TEXT.encode()
    for _ in range(MOST_NESTING + 1):
        data = gzip.compress(data)
    with pytest.raises(NotScannedError, match="deep"):
        list(views_of(data, "f"))
