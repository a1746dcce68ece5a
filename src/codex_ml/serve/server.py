"""The HTTP server: a socket bound once, a graceful stop, and nothing of a request in any log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from codex_ml.errors import UserError
from codex_ml.serve.connections import ConnectionLimits, limited_protocol, require_open_files
from codex_ml.serve.engine import Engine

_MOST_HEADER_BYTES = 16 * 1024
_KEEP_ALIVE_SECONDS = 5
# Beyond one for each request that is answered or waits: health checks, metrics, and clients that send their request.
_SPARE_CONNECTIONS = 192
# Of these, places that one address beyond loopback cannot take; a proxy can still send all requests there are.
_PLACES_FOR_OTHERS = 64
# New connections that asyncio accepts before it reads from those it has: a small part of the spare ones, so that a
# client that sends its request at once is heard before a burst of others can take its place. The kernel queues more.
_ACCEPTED_AT_ONCE = 16
_KERNEL_BACKLOG = 1024
# Four rounds of the loop can pass before the first surplus connection is closed.
_SURPLUS_CONNECTIONS = 4 * _ACCEPTED_AT_ONCE
_OTHER_FILES = 128


@dataclass(frozen=True)
class Address:
    """Where the service listens; port 0 lets the system choose one."""

    host: str
    port: int


class _Server(uvicorn.Server):
    """uvicorn's server, whose signals are ours: it would raise them again when it has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an application until it is asked to stop.

    Parameters
    ----------
    app : ASGIApp
        What is served.
    engine : Engine
        Stopped before the connections are.
    address : Address
        Where.
    most_requests : int
        Requests that are answered or wait at most.
    grace_seconds : float
        How long those that were taken may still take when it stops.
    head_seconds, send_seconds : float
        As for `ConnectionLimits`.

    Raises
    ------
    UserError
        If the address cannot be had, or the system allows too few open files.
    """

    def __init__(
        self,
        app: ASGIApp,
        engine: Engine,
        address: Address,
        *,
        most_requests: int,
        grace_seconds: float,
        head_seconds: float,
        send_seconds: float,
    ) -> None:
        max_connections = most_requests + _SPARE_CONNECTIONS
        require_open_files(
            max_connections + _SURPLUS_CONNECTIONS + _OTHER_FILES, "lower serve.max_running and max_waiting"
        )
        # Neither uvicorn nor what it calls may write a line of its own: an error would hold what a client sent.
        logging.getLogger("uvicorn").disabled = True
        logging.getLogger("uvicorn.error").disabled = True
        config = uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            http=limited_protocol(
                ConnectionLimits(head_seconds, send_seconds, max_connections, max_connections - _PLACES_FOR_OTHERS)
            ),
            loop="asyncio",
            backlog=_ACCEPTED_AT_ONCE,
            # Reached only when all connections are being answered: the protocol closes others first.
            limit_concurrency=max_connections + _SURPLUS_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        )
        try:
            self._socket = config.bind_socket()
        except (SystemExit, OSError) as error:
            raise UserError(
                f"cannot listen on {address.host}:{address.port}",
                why=str(error) if isinstance(error, OSError) else "the address is in use, or not one of this machine",
                fix="set serve.port to a free one (0: any), or serve.host to an address of this machine",
                code="SERVE_ADDRESS_IN_USE",
            ) from error
        self._server = _Server(config)
        self._engine, self._grace_seconds = engine, grace_seconds
        self._asked: list[int] = []
        self._all_answered = True

    @property
    def port(self) -> int:
        """The port it listens on."""
        name: tuple[Any, ...] = self._socket.getsockname()
        return int(name[1])

    def run(self, on_ready: Callable[[], None]) -> int | None:
        """Serve until SIGTERM or SIGINT; a second one ends what is still being answered.

        Returns
        -------
        int or None
            The signal that cut answers short; None when all that was taken was answered.
        """
        return asyncio.run(self._run(on_ready))

    async def _run(self, on_ready: Callable[[], None]) -> int | None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._engine.start()
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        if self._server.started:
            self._socket.listen(_KERNEL_BACKLOG)
        on_ready()
        await serving
        return None if self._all_answered else self._asked[-1]

    def _on_signal(self, number: int) -> None:
        self._asked.append(number)
        if len(self._asked) > 1:
            # A second signal: do not wait.
            self._server.force_exit = True
            self._engine.give_up()
            return
        self._stopping = asyncio.ensure_future(self._stop())

    async def _stop(self) -> None:
        # First the engine: what it has taken is answered, and its connections are still there.
        self._all_answered = await asyncio.to_thread(self._engine.stop, self._grace_seconds)
        self._server.should_exit = True
