"""Access to the service: bearer token, host and origin checks, limits."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codex_ml.errors import UserError
from codex_ml.io.untrusted import UntrustedFileError, read_bytes
from codex_ml.serve.schema import ApiError

LEAST_TOKEN_CHARACTERS = 16
# Read when no other place is named; a container is given its token so.
TOKEN_VARIABLE = "CODEX_ML_API_TOKEN"
_LOOPBACK_NAME = "localhost"
_MAX_TOKEN_BYTES = 4096


class BearerToken:
    """A secret that requests must show; it appears in no text made of this object.

    Parameters
    ----------
    secret : str
        At least 16 printable ASCII characters without spaces.
    source : str
        Where it came from, for errors.
    """

    def __init__(self, secret: str, *, source: str) -> None:
        printable = secret.isascii() and secret.isprintable() and " " not in secret
        if len(secret) < LEAST_TOKEN_CHARACTERS or not printable:
            raise UserError(
                f"{source}: the bearer token cannot be used",
                why=f"it must have at least {LEAST_TOKEN_CHARACTERS} printable ASCII characters and no spaces",
                fix="write a long random text there",
                code="SERVE_TOKEN_UNUSABLE",
            )
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def admits(self, authorization: str | None) -> bool:
        """Tell whether an Authorization header shows the token; takes the same time wherever the two differ."""
        scheme, _, shown = (authorization or "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self._secret)
        return same and scheme.lower() == "bearer"


def read_token(path: Path | None, variable: str | None, environment: Mapping[str, str]) -> BearerToken | None:
    """Return the token from a file, else from an environment variable.

    Where neither is named it is that of ``CODEX_ML_API_TOKEN``, and None where that is not set or empty.

    Raises
    ------
    UserError
        What was named is absent, cannot be read, or holds no usable token.
    """
    if path is not None:
        try:
            secret = read_bytes(path, _MAX_TOKEN_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError, UntrustedFileError) as error:
            # The bytes of the file are part of a UnicodeDecodeError: only its kind is told, and no cause is kept.
            raise UserError(
                f"{path}: the bearer token cannot be read",
                why=str(error) if isinstance(error, UntrustedFileError) else type(error).__name__,
                fix="name a regular text file of at most 4096 bytes that holds the token; in place of a pipe, as from "
                "<(...), name an environment variable with --token-variable",
                code="SERVE_TOKEN_UNUSABLE",
            ) from None
        return BearerToken(secret, source=str(path))
    if variable is None:
        if not environment.get(TOKEN_VARIABLE, "").strip():
            return None
        variable = TOKEN_VARIABLE
    if variable not in environment:
        raise UserError(
            f"{variable}: the environment variable with the bearer token is not set",
            fix="set it",
            code="SERVE_TOKEN_UNUSABLE",
        )
    return BearerToken(environment[variable].strip(), source=variable)


def is_loopback(host: str) -> bool:
    """Tell whether a host to bind to is reached from this machine only."""
    if host == _LOOPBACK_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(host: str, token: BearerToken | None) -> None:
    """Refuse to listen beyond loopback without a token."""
    if token is None and not is_loopback(host):
        raise UserError(
            f"serve.host: {host} is reached from other machines, and no bearer token is set",
            why="everyone who reaches the port could use the models",
            fix="bind 127.0.0.1, or name a file or an environment variable with a token",
            code="SERVE_TOKEN_MISSING",
        )


def names_loopback(host_header: str | None) -> bool:
    """Tell whether a Host header names this machine: a page elsewhere that rebinds its name to loopback does not."""
    header = (host_header or "").strip().lower()
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    else:
        name, _, port = header.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    return is_loopback(name)


def is_foreign_page(headers: Headers, allowed: Collection[str]) -> bool:
    """Tell whether a browser sent the request for a page of another origin that is not allowed.

    Programs send neither header. A browser sends `Origin` with every POST and with every request whose answer the page
    can read; for an image or a script of another site it sends `Sec-Fetch-Site` alone. `Origin: null` (a sandboxed
    frame, a local file) is foreign.

    Parameters
    ----------
    headers : Headers
        Headers of the request; an origin whose host and port are those of `Host` is the service's own.
    allowed : collection of str
        Further origins, such as ``http://localhost:3000``.
    """
    origins = headers.getlist("origin")
    if not origins:
        return headers.get("sec-fetch-site") == "cross-site"
    host = headers.get("host", "").lower()
    own = {f"http://{host}", f"https://{host}"} if host else set()
    return any(origin not in allowed and origin not in own for origin in origins)


def is_json(headers: Headers) -> bool:
    """Tell whether a body is declared as JSON, with or without parameters such as ``charset=utf-8``.

    A page can send other types to any address without a preflight request, which the service would have to permit.
    """
    types = headers.getlist("content-type")
    return len(types) == 1 and types[0].partition(";")[0].strip().lower() == "application/json"


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
