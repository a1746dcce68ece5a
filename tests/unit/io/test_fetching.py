"""Files from the network: only when asked, only what was named, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage, remove_abandoned, staged_pattern
from codex_ml.io.fetching import Fetcher
from codex_ml.offline import NetworkGuard

CONTENT = b"forty lines\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        # Half of what is promised, and then nothing.
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/cut" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - signature of the base class
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return where a server on this machine answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetcher_online_brings_the_file_whole(address: str, tmp_path: Path) -> None:
    """Digest checked, nothing left beside it, and the guard is up again."""
    guard = NetworkGuard()
    guard.activate(lambda _hook: None)
    target = tmp_path / "raw" / "a.txt"
    Fetcher(online=True, environment={}, guard=guard)(f"{address}/a.txt", SHA256, target)
    assert target.read_bytes() == CONTENT
    assert [entry.name for entry in target.parent.iterdir()] == ["a.txt"]
    assert guard.active


class _OtherProcessStarts(Storage):
    """Storage on which another process with the same target starts just before the final rename."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = target
        self.removed: list[str] = []

    def fsync_file(self, path: Path) -> None:
        super().fsync_file(path)
        self.removed += remove_abandoned(self._target.parent, staged_pattern(self._target), Storage())


def test_fetcher_file_that_waits_for_its_name_is_not_taken_for_abandoned(address: str, tmp_path: Path) -> None:
    """The lock is held until the file has its final name."""
    storage = _OtherProcessStarts(tmp_path / "a.txt")
    Fetcher(online=True, environment={}, guard=NetworkGuard())(f"{address}/a.txt", SHA256, tmp_path / "a.txt", storage)
    assert storage.removed == []
    assert (tmp_path / "a.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("online", "environment", "why"), [(False, {}, "--online"), (True, {"NO_NETWORK": "1"}, "NO_NETWORK is set")]
)
def test_fetcher_offline_asks_for_the_file(address: str, tmp_path: Path, online: bool, environment, why: str) -> None:
    """Nothing is fetched, even from this machine, and the message says which file to bring."""
    with pytest.raises(UserError, match=r"a.txt is not here") as raised:
        Fetcher(online, environment)(f"{address}/a.txt", SHA256, tmp_path / "a.txt")
    assert why in raised.value.why
    assert f"--source FILE (sha256 {SHA256})" in raised.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "sha256", "largest", "words"),
    [
        ("/missing", SHA256, 1 << 20, "cannot be fetched"),
        ("/cut", SHA256, 1 << 20, "gives another file than expected"),
        ("/a", "0" * 64, 1 << 20, "gives another file than expected"),
        ("/a", SHA256, 100, "gives more than 100 bytes"),
    ],
)
def test_fetcher_what_is_not_whole_is_not_kept(address, tmp_path: Path, path, sha256, largest, words) -> None:
    """Another file, half of one, or one without an end leaves nothing behind."""
    guard = NetworkGuard()
    with pytest.raises(UserError, match=words):
        Fetcher(True, {}, guard, largest)(address + path, sha256, tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
    assert not guard.active


def test_fetcher_other_schemes_are_refused(tmp_path: Path) -> None:
    """A file of this machine is no answer from a server."""
    with pytest.raises(UserError, match="is not fetched") as raised:
        Fetcher(True, {})("file:///etc/passwd", SHA256, tmp_path / "a")
    assert raised.value.why == "only https and http are"
