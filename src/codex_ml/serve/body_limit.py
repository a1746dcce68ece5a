"""The bound on what a request may send: bytes are counted as they come, also where no length is stated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

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
