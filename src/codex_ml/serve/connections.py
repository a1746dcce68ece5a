"""Limits of connections and of request bodies."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from codex_ml.errors import UserError
from codex_ml.serve.access import is_loopback


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of the connections of a service.

    Attributes
    ----------
    head_seconds : float
        Time from the start of a connection, or from the last answer on it, to a complete request head.
    send_seconds : float
        Time a client may leave a part of its answer unread.
    max_connections : int
        Open connections; one more replaces the one that `LimitedProtocol` values least.
    max_per_address : int
        Open connections of one address.
    is_exempt : callable
        Tells whether an address may have more.
    """

    head_seconds: float
    send_seconds: float
    max_connections: int
    max_per_address: int
    is_exempt: Callable[[str], bool] = is_loopback


def require_open_files(count: int, remedy: str) -> None:
    """Raise the limit of open files of this process to at least ``count`` (``RLIMIT_NOFILE``, setrlimit(2)).

    Parameters
    ----------
    count : int
        Files, sockets included, that may be open at a time.
    remedy : str
        Advice for the error, beside raising the limit.

    Raises
    ------
    UserError
        If the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise UserError(
            f"open files: the limit is too low (got {hard}, expected {count} or more)",
            why="each connection is an open file, and at the limit no client can connect",
            fix=f"raise the limit (ulimit -n {count}), or {remedy}",
            code="SERVE_FILE_LIMIT",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def limited_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """Return the protocol class that enforces ``limits``; uvicorn makes one object of it for each connection."""

    class Limited(LimitedProtocol):
        pass

    Limited.limits = limits
    return Limited


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with a timer for each connection and a table that never locks clients out.

    uvicorn has a timer for silent keep-alive connections only: a connection that sends nothing, or one byte a second,
    stays open, and beyond `limit_concurrency` connections every request gets 503.
    """

    limits: ConnectionLimits
    _timer: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; close another one where there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._make_room()
        self._restart_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle parsed input; a complete head stops the timer."""
        super().handle_events()
        if not self._is_waiting and not self.flow.write_paused:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._since = self.loop.time()
        self._restart_timer()

    def pause_writing(self) -> None:
        """Give the client time to read."""
        super().pause_writing()
        self._restart_timer()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        self._restart_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed input; after the start of an answer only closing is left, and uvicorn would raise."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    @property
    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _restart_timer(self) -> None:
        self._stop_timer()
        if self.flow.write_paused or (self._is_waiting and self.transport.get_write_buffer_size() > 0):
            seconds = self.limits.send_seconds
        elif self._is_waiting:
            seconds = self.limits.head_seconds
        else:
            return
        # Not `close`, which waits until the client has read everything.
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, LimitedProtocol) and other is not self]
        address = None if self.client is None else self.client[0]
        if address is not None and not self.limits.is_exempt(address):
            same = [other for other in others if other.client is not None and other.client[0] == address]
            if len(same) >= self.limits.max_per_address and not _close_least_valued(same):
                self.limit_concurrency = 0  # its requests get 503
        if len(self.connections) > self.limits.max_connections:
            _close_least_valued(others)

    def value(self) -> tuple[int, float] | None:
        """Return how much would be lost if the connection were closed; None while its request is being answered.

        Least: no complete head yet. Then: idle between requests, incomplete body, answer that is not read. Of equals
        the oldest is closed, because an honest client sends its request at once.
        """
        if self.cycle is None or self.transport.is_closing():
            return 0, self._since
        if self.cycle.response_complete:
            return 1, self._since
        if self.cycle.more_body:
            return 2, self._since
        return (3, self._since) if self.flow.write_paused else None


def _close_least_valued(connections: Iterable[LimitedProtocol]) -> bool:
    """Close the connection of least value; return False where all are being answered."""
    valued = [(value, connection) for connection in connections if (value := connection.value()) is not None]
    if not valued:
        return False
    _, victim = min(valued, key=lambda pair: pair[0])
    # `connection_lost` removes it too, but only in the next round of the loop.
    victim.connections.discard(victim)
    victim.transport.abort()
    return True


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class BodyTooLargeError(Exception):
    """A body has more bytes than a request may send."""


class BodyTooSlowError(Exception):
    """A body did not come within the time a request has for it."""


class ClientGoneError(Exception):
    """The client left before its body was whole."""


async def read_body(receive: Receive, *, stated_length: str | None, most_bytes: int, timeout_seconds: float) -> bytes:
    """Return the body of a request.

    Parameters
    ----------
    receive : Receive
        The ASGI channel that the body comes by.
    stated_length : str or None
        Content-Length header, which refuses early; what really comes is counted all the same.
    most_bytes : int
        Most bytes of the body.
    timeout_seconds : float
        Time for the whole body: a client that sends a byte now and then holds no place for ever.

    Raises
    ------
    BodyTooLargeError, BodyTooSlowError, ClientGoneError
        See there; at most one message beyond the bound is held in memory.
    """
    if stated_length is not None and stated_length.isdecimal() and int(stated_length) > most_bytes:
        raise BodyTooLargeError
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _collect(receive, most_bytes)
    except TimeoutError:
        raise BodyTooSlowError from None


async def _collect(receive: Receive, most_bytes: int) -> bytes:
    """Read messages until the last one of the body."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return bytes(body)
