"""Clients that attack the service on loopback: one function or class for each kind of attack, with counted outcomes."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_TIMEOUT_SECONDS = 30.0
_HOST = "127.0.0.1"
# Longer than the service lets a client leave an answer unread.
_UNREAD_SECONDS = 45
Kind = Callable[["Attack", random.Random], None]


@dataclass
class Attack:
    """A service under attack, with counts of the outcomes.

    Attributes
    ----------
    port : int
        Port of the service.
    stop : threading.Event
        Ends every attack.
    counts : Counter
        Number of outcomes of each kind of attack: a status, ``closed`` or ``timeout``.
    """

    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, outcome: str) -> None:
        """Count one outcome."""
        with self._lock:
            self.counts[kind, outcome] += 1

    def repeat(self, kind: Kind, pause_seconds: float, seed: int) -> None:
        """Run one kind of attack until the end; a failed connection is an outcome, not an error."""
        numbers = random.Random(seed)
        while not self.stop.wait(pause_seconds):
            try:
                kind(self, numbers)
            except TimeoutError:
                self.count(kind.__name__, "timeout")
            except OSError:
                self.count(kind.__name__, "closed")

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """Return a new connection, with a receive buffer of ``receive_bytes`` if given."""
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(_TIMEOUT_SECONDS)
        made.connect((_HOST, self.port))
        return made

    def exchange(self, kind: str, sent: bytes) -> None:
        """Send bytes, and count the status of the answer."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
            answer = connection.recv(64)
            while connection.recv(1 << 16):
                pass
        self.count(kind, answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed")


def request(
    body: bytes, path: str = "/v1/completions", method: str = "POST", declared: int | None = None, **headers: str
) -> bytes:
    """Return a request that closes its connection; ``declared`` replaces the length of the body in the head."""
    named = {
        "Host": _HOST,
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if declared is None else declared),
        "Connection": "close",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def completion(prompt: str, max_tokens: int = 8, **further: object) -> bytes:
    """Return the body of a completion request."""
    return json.dumps({"model": "base", "prompt": prompt, "max_tokens": max_tokens, **further}).encode()


def chat(text: str, max_tokens: int = 8) -> bytes:
    """Return the body of a chat request."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "base", "messages": messages, "max_tokens": max_tokens}).encode()


def read_page(port: int, path: str) -> tuple[str, str]:
    """Return status and text of a page; after a failure the status is the type of the error."""
    connection = http.client.HTTPConnection(_HOST, port, timeout=2 * _TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return str(response.status), response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""
    finally:
        connection.close()


_MALFORMED_BODIES = (
    b"",
    b"{",
    b"\xff\xfe{}",
    b"[" * 20_000,
    b'{"model":"base","model":"base","prompt":"a"}',
    b'{"model":"base","prompt":"\\ud800"}',
    b'{"model":"base","prompt":1e999}',
    b'{"model":"base","prompt":"a","max_tokens":1' + b"0" * 5000 + b"}",
    b'{"model":"base","prompt":"a","surprise":1}',
)
_MALFORMED_HEADS = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
)


def malformed_body(attack: Attack, numbers: random.Random) -> None:
    """Send a body that is not a request."""
    attack.exchange("malformed_body", request(numbers.choice(_MALFORMED_BODIES)))


def malformed_head(attack: Attack, numbers: random.Random) -> None:
    """Send a head that is not HTTP/1.1."""
    attack.exchange("malformed_head", numbers.choice(_MALFORMED_HEADS))


def foreign_origin(attack: Attack, numbers: random.Random) -> None:
    """Send a request, or a preflight request, for a page of another origin."""
    headers = {"Origin": numbers.choice(("http://evil.example", "null"))}
    if numbers.random() < 0.5:
        headers |= {"Access_Control_Request_Method": "POST"}
    method = "OPTIONS" if "Access_Control_Request_Method" in headers else "POST"
    attack.exchange("foreign_origin", request(completion("a"), method=method, **headers))


def wrong_content_type(attack: Attack, numbers: random.Random) -> None:
    """Send a body of a type that a page may send without a preflight request."""
    value = numbers.choice(("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"))
    attack.exchange("wrong_content_type", request(completion("a"), Content_Type=value))


def oversized(attack: Attack, numbers: random.Random) -> None:
    """Send a prompt longer than the context, a body over the limit, or a head that declares such a body."""
    sent = numbers.choice(
        (
            request(completion("word " * 40_000)),
            request(completion("a" * 900_000)),
            request(b" " * (2 << 20)),
            request(b"{", declared=1 << 40),
        )
    )
    attack.exchange("oversized", sent)


def vanish(attack: Attack, numbers: random.Random) -> None:
    """Send a request, and disconnect before the answer is complete; half of the clients reset the connection."""
    with attack.connect() as connection:
        connection.sendall(request(completion("Where? ", 64, stream=numbers.random() < 0.5)))
        attack.stop.wait(numbers.random() * 0.3)
        if numbers.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    attack.count("vanish", "left")


def ordinary(attack: Attack, numbers: random.Random) -> None:
    """Send an ordinary request."""
    attack.exchange("ordinary", request(completion(f"What is {numbers.randrange(1000)}? ", 8)))


def looping_template(attack: Attack, numbers: random.Random) -> None:
    """Send a chat request, for which the template loops for hours."""
    attack.exchange("looping_template", request(chat(str(numbers.random())), "/v1/chat/completions"))


def bad_for_tokenizer(attack: Attack, numbers: random.Random) -> None:
    """Send a text that makes the tokenizer of the service hang or panic."""
    text = numbers.choice(("a" * 40 + "b", " " * 900_000 + "x", "a" * 5_000, "b"))
    attack.exchange("bad_for_tokenizer", request(completion(text)))


class HeldConnections:
    """Connections that stay open: each sends one byte per second, or does not read, until the service closes it.

    Parameters
    ----------
    attack : Attack
        The service.
    kind : str
        Name in the counts.
    count : int
        Connections to hold; a closed one is opened again within a second.
    at_once : bytes
        Sent when a connection opens.
    slowly : bytes
        Sent after that, one byte per second.
    receive_bytes : int or None
        Receive buffer of a connection whose answer is not read for 45 s; None: the answer is read.
    """

    def __init__(
        self,
        attack: Attack,
        kind: str,
        count: int,
        *,
        at_once: bytes = b"",
        slowly: bytes = b"",
        receive_bytes: int | None = None,
    ) -> None:
        self._attack, self._kind, self._count = attack, kind, count
        self._at_once, self._slowly, self._receive_bytes = at_once, slowly, receive_bytes
        self._held: dict[socket.socket, Iterator[int]] = {}

    def run(self) -> None:
        """Hold the connections until the end of the attack."""
        while not self._attack.stop.wait(1.0):
            while len(self._held) < self._count and not self._attack.stop.is_set():
                self._open()
            for connection in self._closed():
                del self._held[connection]
                connection.close()
                self._attack.count(self._kind, "closed")
        for connection in self._held:
            connection.close()

    def _open(self) -> None:
        try:
            connection = self._attack.connect(self._receive_bytes)
            self._held[connection] = iter(self._slowly if self._receive_bytes is None else range(_UNREAD_SECONDS))
            connection.sendall(self._at_once)
            self._attack.count(self._kind, "opened")
        except OSError:
            self._attack.count(self._kind, "refused")
            self._attack.stop.wait(0.1)

    def _closed(self) -> list[socket.socket]:
        """Send one byte on each connection; return those that the service has closed."""
        closed = []
        for connection, left in self._held.items():
            try:
                following = next(left, None)
                if self._receive_bytes is not None:
                    # Nothing is read here, so only an error of the connection or the end of its time closes it.
                    is_closed = following is None or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
                else:
                    connection.setblocking(False)
                    if following is not None:
                        connection.sendall(bytes([following]))
                    is_closed = not connection.recv(1 << 16)
                if is_closed:
                    closed.append(connection)
            except BlockingIOError:
                continue
            except OSError:
                closed.append(connection)
        return closed


def network_attacks(attack: Attack) -> list[Callable[[], None]]:
    """Return the attacks that work on any model; each runs in its own thread."""
    slow_body = request(b"", declared=1000)
    stream = request(completion("Tell me everything. ", 400, stream=True))
    metrics = request(b"", "/metrics", "GET").replace(b"Connection: close\r\n", b"")
    held = [
        HeldConnections(attack, "idle_connection", 300),
        HeldConnections(attack, "slow_head", 20, slowly=b"GET /healthz HTTP/1.1\r\nHost: " + b"a" * 1000),
        HeldConnections(attack, "slow_body", 10, at_once=slow_body, slowly=b" " * 1000),
        HeldConnections(attack, "slow_reader", 3, at_once=stream, receive_bytes=2048),
        HeldConnections(attack, "slow_reader_pipelined", 3, at_once=metrics * 2000, receive_bytes=2048),
    ]
    repeated: list[tuple[Kind, float]] = [
        (malformed_body, 0.3),
        (malformed_head, 0.3),
        (foreign_origin, 0.3),
        (wrong_content_type, 0.3),
        (oversized, 2.0),
        (vanish, 1.0),
        (ordinary, 1.0),
    ]
    return [one.run for one in held] + [repeating(attack, *one, number) for number, one in enumerate(repeated)]


def model_attacks(attack: Attack) -> list[Callable[[], None]]:
    """Return the attacks that need the looping chat template and the bad tokenizer."""
    return [repeating(attack, looping_template, 2.0, 100), repeating(attack, bad_for_tokenizer, 2.0, 101)]


def repeating(attack: Attack, kind: Kind, pause_seconds: float, seed: int) -> Callable[[], None]:
    """Return a function that repeats one kind of attack."""
    return lambda: attack.repeat(kind, pause_seconds, seed)
