"""Checks that every request passes first: Host, origin, bearer token, type of the body."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codex_ml.serve.access import BearerToken, names_loopback
from codex_ml.serve.api_error import ApiError
from codex_ml.serve.origins import is_foreign_page, is_json

# Health checks carry no token: they say nothing but yes or no.
OPEN_ROUTES = frozenset({"/healthz", "/readyz"})
Responded = Callable[[str, int, float], None]


class Gatekeeper:
    """Lets requests through, or answers them with an error; counts every response.

    Parameters
    ----------
    app : ASGIApp
        What is behind it.
    token : BearerToken or None
        What a request must show; None on loopback, where none was set.
    loopback_only : bool
        Whether a request must call the service by a name of this machine. A page of the web whose name is made to
        lead to loopback (DNS rebinding) calls it by its own.
    allowed_origins : collection of str
        Origins of web pages that may call the service, in addition to its own.
    routes : frozenset of str
        Paths by their own name in the count; others are counted together.
    responded : callable
        Takes route, status and seconds of each response.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: BearerToken | None,
        loopback_only: bool,
        allowed_origins: Collection[str],
        routes: frozenset[str],
        responded: Responded,
        clock: Callable[[], float],
    ) -> None:
        self._app, self._token, self._loopback_only = app, token, loopback_only
        self._allowed_origins = allowed_origins
        self._routes, self._responded, self._clock = routes, responded, clock
        # Answers preflight requests, which carry no token, and lets allowed pages read answers and errors.
        self._cors = CORSMiddleware(
            self._admitted, allow_origins=tuple(allowed_origins), allow_methods=("GET", "POST"), allow_headers=("*",)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            # Start and end of the service; no websocket is spoken here.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        begun, status = self._clock(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            error = self._refusal(scope)
            if error is None:
                await self._cors(scope, receive, counted)
            else:
                await send_error(error, counted)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._responded(route, status, self._clock() - begun)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        token = None if scope["path"] in OPEN_ROUTES else self._token
        if token is not None and not token.admits(headers.get("authorization")):
            error = ApiError(401, "show the bearer token in the Authorization header", code="invalid_api_key")
            await send_error(error, send)
        elif scope["method"] == "POST" and not is_json(headers):
            error = ApiError(415, "send the header Content-Type: application/json", code="unsupported_media_type")
            await send_error(error, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._loopback_only and not names_loopback(headers.get("host")):
            return ApiError(
                421, "this service answers to 127.0.0.1 and localhost only: call it by one of them", code="wrong_host"
            )
        if is_foreign_page(headers, self._allowed_origins):
            return ApiError(
                403, "the origin of this web page is not in serve.allowed_origins", code="origin_not_allowed"
            )
        return None


async def send_error(error: ApiError, send: Send) -> None:
    """Send an error as a response."""
    headers = {"content-type": "application/json", **error.headers()}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": json.dumps(error.body()).encode()})
