"""The routes of the service: models, completions, health, metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from codex_ml.serve.access import BearerToken, Gatekeeper
from codex_ml.serve.engine import Engine
from codex_ml.serve.schema import ApiError
from codex_ml.serve.service import CONTENT_TYPE, Service, ServiceMetrics

CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"


def build_app(
    service: Service,
    engine: Engine,
    metrics: ServiceMetrics,
    *,
    token: BearerToken | None,
    loopback_only: bool,
    allowed_origins: Collection[str],
    clock: Callable[[], float],
) -> ASGIApp:
    """Return the service as an ASGI application.

    Parameters
    ----------
    service, engine, metrics
        The service, its engine, and its metrics.
    token, loopback_only, allowed_origins
        As for `Gatekeeper`.
    clock : callable
        Gives seconds that only grow.
    """
    # Pages that describe the interface load their scripts from elsewhere.
    app = FastAPI(title="codex-ml", docs_url=None, redoc_url=None, openapi_url=None)
    _add_routes(app, service, engine, metrics)

    @app.exception_handler(ApiError)
    async def refused(_request: Request, error: ApiError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> Response:
        known = ApiError(error.status_code, f"{error.detail}: see {MODELS}, {CHAT} and {COMPLETIONS}")
        return JSONResponse(known.body(), known.status, error.headers)

    return Gatekeeper(
        app,
        token=token,
        loopback_only=loopback_only,
        allowed_origins=allowed_origins,
        routes=frozenset({CHAT, COMPLETIONS, MODELS, HEALTH, READY, METRICS}),
        responded=metrics.responded,
        clock=clock,
    )


def _add_routes(app: FastAPI, service: Service, engine: Engine, metrics: ServiceMetrics) -> None:
    @app.get(HEALTH, response_model=None)
    async def health() -> Response:
        """Report whether the service works: 503 where only a restart helps."""
        why = engine.unhealthy()
        return PlainTextResponse("ok\n" if why is None else f"{why}\n", 200 if why is None else 503)

    @app.get(READY, response_model=None)
    async def ready() -> Response:
        """Say whether a request would be taken."""
        why = engine.unready()
        return PlainTextResponse("ready\n" if why is None else f"{why}\n", 200 if why is None else 503)

    @app.get(METRICS, response_model=None)
    async def counts() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get(MODELS, response_model=None)
    async def models() -> Response:
        return JSONResponse(service.model_list())

    @app.get(MODELS + "/{name:path}", response_model=None)
    async def model(name: str) -> Response:
        return JSONResponse(service.model(name))

    # Plain routes: the body is read by the service, within its bounds, and by nothing before it.
    app.add_route(CHAT, service.chat, methods=["POST"])
    app.add_route(COMPLETIONS, service.completion, methods=["POST"])
