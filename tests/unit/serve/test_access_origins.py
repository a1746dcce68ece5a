"""Tests of the checks of web origins and of the JSON content type."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from codex_ml.serve.access import is_foreign_page, is_json

ALLOWED = ("http://localhost:3000", "tauri://localhost")
HOST = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},
        {"origin": "tauri://localhost"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
    ],
)
def test_is_foreign_page_program_own_or_allowed_page_is_not(headers: dict[str, str]) -> None:
    """Programs send no origin; the service's own origin equals the Host header."""
    assert not is_foreign_page(Headers({**HOST, **headers}), ALLOWED)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://localhost:3000.evil.example"},
        {"origin": "http://LOCALHOST:3000"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://", "host": ""},
    ],
)
def test_is_foreign_page_other_page_is(headers: dict[str, str]) -> None:
    """Pages without an origin, of another port, and with an allowed name as prefix are foreign."""
    assert is_foreign_page(Headers({**HOST, **headers}), ALLOWED)


def test_is_foreign_page_one_of_two_origins_is() -> None:
    """Every Origin header must be allowed."""
    raw = [(b"host", b"a"), (b"origin", b"http://a"), (b"origin", b"http://b")]
    assert is_foreign_page(Headers(raw=raw), ())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["application/json"], True),
        (["application/json; charset=utf-8"], True),
        (["Application/JSON;charset=UTF-8"], True),
        ([], False),
        (["text/plain"], False),
        (["text/plain; application/json"], False),
        (["application/jsonp"], False),
        (["application/json", "text/plain"], False),
        (["multipart/form-data"], False),
        (["application/x-www-form-urlencoded"], False),
    ],
)
def test_is_json_reads_the_media_type_only(values: list[str], expected: bool) -> None:
    """Parameters are allowed; two headers are not."""
    assert is_json(Headers(raw=[(b"content-type", value.encode()) for value in values])) is expected
