"""Tests of the connection limits, with a real server on loopback and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from codex_ml.serve.connections import ConnectionLimits, limited_protocol

# Far above the duration of any test; a test that hangs fails.
GUARD_SECONDS = 60.0
LONG = 1000.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_HEAD = b"GET / HTTP/1.1\r\nHost:"
HALF_BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234"


@dataclass
class Connect:
    """Connects clients to a server."""

    address: tuple[str, int]
    state: ServerState
    made: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __call__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a new connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        self.made.append(writer)
        return reader, writer

    async def all_closed(self) -> None:
        """Wait until the server has closed every connection."""
        while self.state.connections:
            await asyncio.sleep(0.01)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with "ok": /body after the body, /large with 8 MiB, /stream in 128 pieces of 64 KiB, /never not at all."""
    if scope["path"] == "/never":
        await receive()
        await receive()
        return
    if scope["path"] == "/body":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(128):
            await send({"type": "http.response.body", "body": b"x" * (64 << 10), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    body = b"x" * (8 << 20) if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(
    head_seconds: float = LONG,
    send_seconds: float = LONG,
    max_connections: int = 100,
    max_per_address: int | None = None,
) -> AsyncIterator[Connect]:
    """Serve `app` and yield a function that connects to it."""
    limits = ConnectionLimits(
        head_seconds,
        send_seconds,
        max_connections,
        max_per_address or 0,
        is_exempt=lambda _: max_per_address is None,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=limited_protocol(limits), log_config=None, lifespan="off", ws="none")
        config.timeout_keep_alive = int(LONG)
        # Requests get 503 when no connection can be closed for a new one.
        config.limit_concurrency = 2 * max_connections
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server._serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        connect = Connect(listener.getsockname(), server.server_state)
        yield connect
        for writer in connect.made:
            writer.transport.abort()
        server.should_exit = server.force_exit = True
        await serving


def run(body: Coroutine[Any, Any, None]) -> None:
    """Run a test with a time limit."""
    asyncio.run(asyncio.wait_for(body, GUARD_SECONDS))


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Return the bytes received until the server closed the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            received += piece
    return received


async def answered(connect: Connect) -> bool:
    """Return whether a new client gets its answer."""
    reader, writer = await connect()
    writer.write(GET)
    return (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", HALF_HEAD])
def test_connection_without_a_head_is_closed(sent: bytes) -> None:
    """The timeout applies whether the client sent nothing or a part of the head."""

    async def body() -> None:
        async with serving(head_seconds=0.2) as connect:
            reader, writer = await connect()
            writer.write(sent)
            assert await closed(reader) == b""

    run(body())


def test_connection_head_byte_by_byte_is_closed() -> None:
    """Single bytes do not restart the timer, even after an answer on the same connection."""

    async def body() -> None:
        async with serving(head_seconds=0.3) as connect:
            reader, writer = await connect()
            writer.write(GET)
            await reader.readuntil(b"ok")
            ended = asyncio.ensure_future(closed(reader))
            writer.write(HALF_HEAD)
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert await ended == b""

    run(body())


def test_connection_whose_body_never_ends_is_closed() -> None:
    """The application answered without reading the body, so the body timeout does not apply."""

    async def body() -> None:
        async with serving(head_seconds=0.3) as connect:
            reader, writer = await connect()
            writer.write(HALF_BODY.replace(b"/body", b"/", 1).replace(b": 9", b": 999999"))
            await reader.readuntil(b"ok")
            ended = asyncio.ensure_future(closed(reader))
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert await ended == b""

    run(body())


def test_connection_that_waits_for_its_answer_stays() -> None:
    """The timeout for a head does not limit the time for an answer."""

    async def body() -> None:
        async with serving(head_seconds=0.1) as connect:
            reader, writer = await connect()
            writer.write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
            ended = asyncio.ensure_future(closed(reader))
            idle, _ = await connect()
            await closed(idle)
            assert not ended.done()
            ended.cancel()

    run(body())


@pytest.mark.parametrize("path", [b"/large", b"/stream", b"/large HTTP/1.1\r\nHost: x\r\n\r\nGET /large"])
def test_connection_that_does_not_read_is_closed(path: bytes) -> None:
    """One answer, one streamed answer, and a second request that was sent before the first answer was read."""

    async def body() -> None:
        async with serving(send_seconds=0.3) as connect:
            reader, writer = await connect()
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            # asyncio reads 128 KiB ahead, and the kernel takes some MiB.
            await reader.read(1)
            await connect.all_closed()
            assert len(await closed(reader)) < 8 << 20

    run(body())


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, GET, HALF_BODY])
def test_full_table_a_new_client_is_answered(sent: bytes) -> None:
    """There are three times as many connections as the limit allows, in every state."""

    async def body() -> None:
        async with serving(max_connections=10) as connect:
            for _ in range(30):
                _, writer = await connect()
                writer.write(sent)
                await writer.drain()
            for _ in range(30):
                assert await answered(connect)

    run(body())


def test_full_table_connection_of_lowest_priority_is_closed() -> None:
    """Unused connections are closed first, then idle ones; a connection that waits for its answer stays."""

    async def body() -> None:
        async with serving(max_connections=3) as connect:
            waits, waiting = await connect()
            waiting.write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
            idle, used = await connect()
            used.write(GET)
            await idle.readuntil(b"ok")
            unused, _ = await connect()
            assert await answered(connect)
            await closed(unused)
            used.write(GET)
            await idle.readuntil(b"ok")
            assert not waits.at_eof()

    run(body())


def test_share_of_an_address_is_kept() -> None:
    """A new connection replaces an idle one of its address; when all of them wait for answers, it gets 503."""

    async def body() -> None:
        async with serving(max_per_address=2) as connect:
            idle = [(await connect())[0] for _ in range(4)]
            for reader in idle[:2]:
                assert await closed(reader) == b""
            for _ in range(2):
                _, writer = await connect()
                writer.write(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
            for reader in idle[2:]:
                assert await closed(reader) == b""
            while len(connect.state.tasks) < 2:
                await asyncio.sleep(0.01)
            reader, writer = await connect()
            writer.write(GET)
            assert (await closed(reader)).startswith(b"HTTP/1.1 503")

    run(body())


def test_malformed_body_after_the_answer_closes_the_connection() -> None:
    """Otherwise uvicorn tries to send a second answer and raises in the event loop."""

    async def body() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await reader.readuntil(b"ok")
            writer.write(b"no length\r\n")
            await closed(reader)
        assert faults == []

    run(body())
