"""Which web pages may call the service: a browser names the page in `Origin` and `Sec-Fetch-Site` (Fetch standard)."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers


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
