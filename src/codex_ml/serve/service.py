"""The service: queue, metrics and health."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from codex_ml.data.readers.json import parse_object
from codex_ml.generation.requests import Generation
from codex_ml.serve.connections import BodyTooLargeError, BodyTooSlowError, ClientGoneError, read_body
from codex_ml.serve.engine import Engine, GenerationParams, Job, Turn
from codex_ml.serve.schema import AnswerShape, ApiError, ChatRequest, CompletionRequest, parse_request
from codex_ml.serve.streaming import EventStream, client_leaves, next_or_gone

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ServiceMetrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._responses = Counter(
            "codex_ml_responses", "Responses by route and status.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "codex_ml_response_seconds",
            "Seconds from a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._prompt_tokens = Counter("codex_ml_prompt_tokens", "Tokens of prompts.", ["model"], registry=registry)
        self._generated = Counter("codex_ml_generated_tokens", "Tokens generated.", ["model"], registry=registry)
        self._finished = Counter(
            "codex_ml_answers", "Answers by why they ended.", ["model", "finish_reason"], registry=registry
        )
        self._redacted = Counter(
            "codex_ml_redactions", "Prompts and answers that the safety policy changed.", ["side"], registry=registry
        )
        self._failed = Counter("codex_ml_failures", "Answers that failed.", ["model"], registry=registry)

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Ask for how many requests wait and are answered whenever the counts are read."""
        Gauge("codex_ml_requests_waiting", "Requests that wait.", registry=self._registry).set_function(waiting)
        Gauge("codex_ml_requests_running", "Requests answered now.", registry=self._registry).set_function(running)

    def responded(self, route: str, status: int, seconds: float) -> None:
        """Count a response that has ended."""
        self._responses.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answered(self, model: str, generation: Generation) -> None:
        """Count an answer."""
        self._prompt_tokens.labels(model).inc(generation.prompt_token_count)
        self._generated.labels(model).inc(generation.token_count)
        self._finished.labels(model, generation.finish_reason).inc()
        for side, changed in (("prompt", generation.prompt_redacted), ("answer", generation.redacted)):
            if changed:
                self._redacted.labels(side).inc()

    def failed(self, model: str) -> None:
        """Count an answer that failed."""
        self._failed.labels(model).inc()

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


# Nobody reads it: the client has gone. nginx made the number known.
_CLIENT_GONE = 499


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds of one request.

    Attributes
    ----------
    most_body_bytes : int
        Of its body.
    body_seconds, request_seconds, send_seconds : float
        For its body to come, for its answer, and for the client to read a piece of it.
    most_new_tokens : int
        Longest answer that can be asked for.
    """

    most_body_bytes: int
    body_seconds: float
    request_seconds: float
    send_seconds: float
    most_new_tokens: int


class Service:
    """Answers requests with an engine.

    Parameters
    ----------
    engine : Engine
        The queue and the models.
    models : tuple of str
        Names that can be asked for.
    limits : ServiceLimits
        Bounds.
    now : callable
        Gives the time as seconds since 1970.
    """

    def __init__(
        self, engine: Engine, models: tuple[str, ...], limits: ServiceLimits, now: Callable[[], float]
    ) -> None:
        self._engine, self._models, self._limits, self._now = engine, models, limits, now

    async def chat(self, request: Request) -> Response:
        """Answer POST /v1/chat/completions."""
        asked_params = parse_request(ChatRequest, await self._fields(request))
        turns = tuple(Turn(message.role, message.content) for message in asked_params.messages)
        return await self._answer(request, asked_params, turns, asked_params.most_tokens(), "chatcmpl")

    async def completion(self, request: Request) -> Response:
        """Answer POST /v1/completions."""
        asked_params = parse_request(CompletionRequest, await self._fields(request))
        return await self._answer(request, asked_params, asked_params.prompt, asked_params.most_tokens(), "cmpl")

    def model_list(self) -> dict[str, Any]:
        """Return what GET /v1/models answers."""
        return {"object": "list", "data": [self.model(name) for name in self._models]}

    def model(self, name: str) -> dict[str, Any]:
        """Return what is said of one model.

        Raises
        ------
        ApiError
            404: there is none of that name.
        """
        self._require(name)
        return {"id": name, "object": "model", "created": 0, "owned_by": "codex-ml"}

    def _require(self, name: str) -> None:
        if name not in self._models:
            raise ApiError(
                404,
                f"there is no such model here; there are: {', '.join(self._models)}",
                param="model",
                code="model_not_found",
            )

    async def _fields(self, request: Request) -> dict[str, Any]:
        limits = self._limits
        try:
            body = await read_body(
                request.receive,
                stated_length=request.headers.get("content-length"),
                most_bytes=limits.most_body_bytes,
                timeout_seconds=limits.body_seconds,
            )
        except BodyTooLargeError:
            raise ApiError(413, f"the body is longer than {limits.most_body_bytes} bytes", code="too_large") from None
        except BodyTooSlowError:
            raise ApiError(408, f"the body did not come within {limits.body_seconds:g} seconds") from None
        except ClientGoneError:
            raise ApiError(_CLIENT_GONE, "the client left") from None
        try:
            return parse_object(body)
        except ValueError:
            # The reason quotes what was sent.
            raise ApiError(400, "the body is no JSON object in UTF-8", code="invalid_json") from None

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prompt: str | tuple[Turn, ...],
        most_tokens: int | None,
        kind: str,
    ) -> Response:
        self._require(asked.model)
        if most_tokens is not None and most_tokens > self._limits.most_new_tokens:
            raise ApiError(
                400,
                f"max_tokens is above the {self._limits.most_new_tokens} that one answer may have here",
                param="max_tokens",
                code="invalid_value",
            )
        asked_params = GenerationParams(most_tokens, asked.temperature, asked.top_p, asked.stop_strings(), asked.seed)
        identifier = f"{kind}-{uuid.uuid4().hex}"
        job = Job(identifier, asked.model, prompt, asked_params, self._engine.clock() + self._limits.request_seconds)
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        shape = AnswerShape(identifier, int(self._now()), asked.model, not isinstance(prompt, str), with_usage)
        self._engine.submit(job)
        return await (self._streamed if asked.stream else self._whole)(request, job, shape)

    async def _whole(self, request: Request, job: Job, shape: AnswerShape) -> Response:
        gone = asyncio.ensure_future(client_leaves(request.receive))
        parts: list[str] = []
        try:
            while True:
                now = await next_or_gone(job, gone, self._engine.clock)
                if now is None:
                    raise ApiError(_CLIENT_GONE, "the client left")
                if isinstance(now, ApiError):
                    raise now
                if isinstance(now, Generation):
                    # What a stream may have shown before a filter ended it is not given out here.
                    text = "" if now.finish_reason == "blocked" else "".join(parts)
                    return JSONResponse(shape.whole(text, now))
                parts.append(now.text)
        finally:
            job.cancel()
            gone.cancel()

    async def _streamed(self, request: Request, job: Job, shape: AnswerShape) -> Response:
        gone = asyncio.ensure_future(client_leaves(request.receive))
        try:
            first = await next_or_gone(job, gone, self._engine.clock)
        finally:
            gone.cancel()
        if first is None:
            raise ApiError(_CLIENT_GONE, "the client left")
        if isinstance(first, ApiError):
            raise first
        return EventStream(job, first, shape, self._limits.send_seconds, self._engine.clock)
