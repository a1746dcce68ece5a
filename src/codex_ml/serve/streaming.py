"""An answer sent as it comes, to a client that may leave or stop to read: neither holds anything up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from codex_ml.generation.requests import Generation
from codex_ml.serve.engine import Event, Job, Piece
from codex_ml.serve.schema import AnswerShape, event, too_late

_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


async def client_leaves(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def next_or_gone(job: Job, gone: asyncio.Task[None], clock: Callable[[], float]) -> Event | None:
    """Return the next event of a job; None, and the job given up, when the client goes first.

    A job whose time is over is given up too: it may still wait behind others, and its client is not to wait for them.
    """
    waiting = asyncio.ensure_future(job.next_event())
    left_seconds = max(0.0, job.deadline - clock())
    try:
        await asyncio.wait({waiting, gone}, timeout=left_seconds, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
    finally:
        waiting.cancel()
    job.cancel()
    return None if gone.done() else too_late()


class EventStream(Response):
    """A response of server-sent events.

    Parameters
    ----------
    job : Job
        The request; given up when the client leaves.
    first : Event
        Its first event, which was waited for: what fails at once has a status of its own.
    shape : AnswerShape
        How the events are written.
    send_seconds : float
        Time that a client may take to read what was sent before the connection is given up.
    clock : callable
        That of the job's deadline.
    """

    def __init__(
        self, job: Job, first: Event, shape: AnswerShape, send_seconds: float, clock: Callable[[], float]
    ) -> None:
        super().__init__()
        self._clock = clock
        self._job, self._first, self._shape, self._send_seconds = job, first, shape, send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the events as an ASGI response."""
        gone = asyncio.ensure_future(client_leaves(receive))
        try:
            async with asyncio.timeout(self._send_seconds):
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._body(send, self._shape.begin(), more=True)
            now: Event | None = self._first
            while now is not None:
                if isinstance(now, Piece):
                    await self._body(send, self._shape.piece(now.text), more=True)
                    now = await next_or_gone(self._job, gone, self._clock)
                    continue
                last = self._shape.end(now) if isinstance(now, Generation) else event(now.body())
                await self._body(send, last, more=False)
                return
        except TimeoutError:
            # It does not read; closing the connection is all that is left to tell it.
            raise ConnectionAbortedError("the client did not read its answer") from None
        finally:
            self._job.cancel()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    async def _body(self, send: Send, data: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._send_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": more})
