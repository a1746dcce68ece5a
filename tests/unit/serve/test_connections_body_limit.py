"""Tests of the bound on what a request may send."""

from __future__ import annotations

import asyncio

import pytest

from codex_ml.serve.connections import (
    BodyTooLargeError,
    BodyTooSlowError,
    ClientGoneError,
    Message,
    read_body,
)


class Channel:
    """Hand out messages, then wait for ever."""

    def __init__(self, *messages: Message) -> None:
        self.left = list(messages)

    async def __call__(self) -> Message:
        """Return the next message."""
        if not self.left:
            await asyncio.Event().wait()
        return self.left.pop(0)


def part(body: bytes, *, more: bool = True) -> Message:
    """Return one message of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


def read(channel: Channel, stated: str | None = None) -> bytes:
    """Read with a bound of 8 bytes."""
    return asyncio.run(read_body(channel, stated_length=stated, most_bytes=8, timeout_seconds=0.2))


def test_read_body_exactly_at_bound_is_whole() -> None:
    """Parts are joined, and the bound itself is allowed."""
    assert read(Channel(part(b"1234"), part(b"5678", more=False))) == b"12345678"


def test_read_body_chunked_beyond_bound_stops_reading() -> None:
    """Without a length the bytes are counted, and what follows is left unread."""
    channel = Channel(part(b"12345"), part(b"6789"), part(b"more"))
    with pytest.raises(BodyTooLargeError):
        read(channel)
    assert len(channel.left) == 1


def test_read_body_stated_too_long_reads_nothing() -> None:
    """A stated length refuses before the first byte."""
    channel = Channel(part(b"", more=False))
    with pytest.raises(BodyTooLargeError):
        read(channel, "9")
    assert len(channel.left) == 1


def test_read_body_length_understated_is_counted() -> None:
    """A small stated length does not let a large body in."""
    with pytest.raises(BodyTooLargeError):
        read(Channel(part(b"123456789", more=False)), "1")


def test_read_body_stalled_times_out() -> None:
    """A client that stops in the middle is given up."""
    with pytest.raises(BodyTooSlowError):
        read(Channel(part(b"1")))


def test_read_body_client_gone_says_so() -> None:
    """A client that leaves is told from a body that ended."""
    with pytest.raises(ClientGoneError):
        read(Channel(part(b"1"), {"type": "http.disconnect"}))
