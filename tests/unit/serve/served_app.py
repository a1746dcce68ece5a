"""An application over fake models, and a client of its ASGI interface that may misbehave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from fake_source import FakeSource
from starlette.types import ASGIApp, Message

from codex_ml.serve.access import BearerToken
from codex_ml.serve.app import COMPLETIONS, build_app
from codex_ml.serve.engine import Engine, Limits
from codex_ml.serve.service import Service, ServiceLimits, ServiceMetrics


@dataclass
class Client:
    """Client of one request, with its response; it may disconnect or stop reading."""

    app: ASGIApp
    path: str
    method: str = "POST"
    fields: Any = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reads: bool = True
    left: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[Message] = field(default_factory=list)
    _sent: bool = False

    async def run(self) -> Client:
        """Send the request and read the whole response."""
        body = self.body or (b"" if self.fields is None else json.dumps(self.fields).encode())
        headers = {"host": "127.0.0.1:8000", "content-type": "application/json", **self.headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
        }

        async def receive() -> Message:
            if not self._sent:
                self._sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if not self.reads and message["type"] == "http.response.body":
                await asyncio.Event().wait()
            self.messages.append(message)
            self.answered.set()

        await asyncio.wait_for(self.app(scope, receive, send), 20)
        return self

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self.messages[0]["status"])

    def header(self, name: str) -> str:
        """Return a header of the response; empty where it is absent."""
        return dict(self.messages[0]["headers"]).get(name.encode(), b"").decode()

    @property
    def content(self) -> bytes:
        """The body of the response."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


@dataclass
class Setting:
    """An application and its models."""

    source: FakeSource
    engine: Engine
    app: ASGIApp

    def client(self, path: str = COMPLETIONS, **options: Any) -> Client:
        """Return a client of the application."""
        return Client(self.app, path, **options)


Make = Callable[..., Setting]


def applications() -> Iterator[Make]:
    """Yield a function that makes applications; their models are stopped afterwards."""
    made: list[Setting] = []

    def build(
        *, token: str | None = None, loopback_only: bool = True, origins: tuple[str, ...] = (), **limits: Any
    ) -> Setting:
        source = FakeSource()
        metrics = ServiceMetrics()
        engine = Engine(source, Limits(limits.pop("most_running", 4), limits.pop("most_waiting", 8)), metrics)
        metrics.watch(lambda: engine.waiting, lambda: engine.running)
        bounds = {
            "most_body_bytes": 4096,
            "body_seconds": 5.0,
            "request_seconds": 10.0,
            "send_seconds": 5.0,
            "most_new_tokens": 50,
            **limits,
        }
        service = Service(engine, source.names(), ServiceLimits(**bounds), time.time)
        app = build_app(
            service,
            engine,
            metrics,
            token=None if token is None else BearerToken(token, source="a test"),
            loopback_only=loopback_only,
            allowed_origins=origins,
            clock=time.monotonic,
        )
        engine.start()
        made.append(Setting(source, engine, app))
        return made[-1]

    yield build
    for setting in made:
        setting.source.go.set()
        setting.engine.give_up()


def run(body: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a new event loop."""
    return asyncio.run(body)


def asked(prompt: str, **further: Any) -> dict[str, Any]:
    """Return the fields of a request."""
    return {"model": "base", "prompt": prompt, **further}


def events(client: Client) -> list[Any]:
    """Return the events of a stream; the last one is the end marker [DONE]."""
    lines = client.content.decode().split("\n\n")
    assert lines[-1] == ""
    assert all(line.startswith("data: ") for line in lines[:-1])
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines[:-1]]
