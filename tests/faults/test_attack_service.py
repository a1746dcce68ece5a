"""Clients that attack the service: connections that send nothing, slow heads, malformed input, few open files."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
GUARD_SECONDS = 60.0
PROGRAM = Path(__file__).with_name("fake_service.py")
BODY = json.dumps({"model": "base", "prompt": "one two"})


@contextlib.contextmanager
def served(head_seconds: float, prepare: Callable[[], None] | None = None) -> Iterator[int]:
    """Run the service in a child process and yield its port; it must print nothing and exit with code 0."""
    path = os.pathsep.join([str(PROGRAM.parents[1] / "unit" / "serve"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(head_seconds)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield int(line or 0)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=GUARD_SECONDS)
    assert (process.returncode, errors) == (0, "")


def ask(port: int, path: str = "/v1/completions", method: str = "POST") -> tuple[int, str]:
    """Return the status and the text of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD_SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, BODY if method == "POST" else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()


def connect(port: int, sent: bytes) -> socket.socket:
    """Return a connection after sending some bytes."""
    made = socket.create_connection(("127.0.0.1", port), timeout=GUARD_SECONDS)
    with contextlib.suppress(ConnectionError):
        made.sendall(sent)
    return made


@pytest.mark.parametrize("sent", [b"", b"POST /v1/completions HTTP/1.1\r\nHost: 127.", b"GET /healthz HTTP/1.1\r\n"])
def test_idle_connections_three_hundred_do_not_stop_the_service(sent: bytes) -> None:
    """Other clients are answered while the connections are open; no timer expires in this test."""
    with served(head_seconds=1000.0) as port, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(port, sent))
        for _ in range(5):
            assert ask(port, "/healthz", "GET") == (200, "ok\n")
            status, text = ask(port)
            assert (status, json.loads(text)["choices"][0]["text"]) == (200, "base: one two ")


def test_idle_connections_are_closed_after_the_time_for_a_head() -> None:
    """The service closes every one of them."""
    with served(head_seconds=0.5) as port, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(port, b"GET / HT")) for _ in range(60)]
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""


def test_malformed_input_is_refused_without_a_line_of_the_service() -> None:
    """For invalid heads, bodies and chunks the service prints nothing and answers the next client."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with served(head_seconds=1000.0) as port:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000,
            b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n",
            head.replace(b"127.0.0.1", b"a.example") + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n",
            head + b"Content-Length: 1\r\n\r\n{",
        ):
            with connect(port, sent) as connection, contextlib.suppress(ConnectionError):
                received = connection.recv(15)
                assert received == b"" or received.startswith(b"HTTP/1.1 4")
        with connect(port, head.replace(b"127.0.0.1", b"a.example") + b"Transfer-Encoding: chunked\r\n\r\n") as late:
            assert late.recv(12) == b"HTTP/1.1 421"
            late.sendall(b"no length\r\n")
            with contextlib.suppress(ConnectionError):
                while late.recv(1000):
                    pass
        assert ask(port)[0] == 200


def test_open_files_soft_limit_is_raised() -> None:
    """Three hundred connections need more files than a small soft limit allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with (
        served(1000.0, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))) as port,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(300):
            stack.enter_context(connect(port, b""))
        assert ask(port)[0] == 200


def test_open_files_hard_limit_too_low_is_refused() -> None:
    """The error comes before the service listens and names the required number."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from codex_ml.errors import UserError; from codex_ml.serve.connections import require_open_files\n"
        "require_open_files(64, 'x')\n"
        "try: require_open_files(744, 'lower serve.max_running')\n"
        "except UserError as error: print(error.block())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "open files: the limit is too low (got 64, expected 744 or more)" in answer.stdout
    assert "lower serve.max_running" in answer.stdout
