"""Access to the application: tokens, host names, and pages of other origins."""

from __future__ import annotations

import pytest
from served_app import Make, asked, run

from codex_ml.serve.app import CHAT, COMPLETIONS, HEALTH, METRICS, MODELS, READY

TOKEN = "a-token-of-a-test-only"
ORIGIN = "http://localhost:3000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
def test_token_is_required_for_all_but_health(make: Make, headers: dict[str, str], status: int) -> None:
    """Models, metrics and completions need a token; health checks answer every client."""
    setting = make(token=TOKEN, loopback_only=False)
    for path, method in ((MODELS, "GET"), (METRICS, "GET"), (COMPLETIONS, "POST")):
        client = run(setting.client(path, method=method, fields=asked("a"), headers=headers).run())
        assert client.status == status
        assert TOKEN not in client.content.decode()
    for path in (HEALTH, READY):
        assert run(setting.client(path, method="GET", headers={"host": "anything"}).run()).status == 200


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:1", 200), ("localhost", 200), ("evil.example", 421), ("", 421)]
)
def test_host_on_loopback_must_be_a_name_of_this_machine(make: Make, host: str, status: int) -> None:
    """A page of another host whose name resolves to loopback is refused."""
    assert run(make().client(MODELS, method="GET", headers={"host": host}).run()).status == status


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 200, None),
        ({"origin": "http://127.0.0.1:8000"}, 200, None),
        ({"origin": ORIGIN}, 200, None),
        ({"content-type": "application/json; charset=utf-8"}, 200, None),
        ({"origin": "http://evil.example"}, 403, "origin_not_allowed"),
        ({"origin": "http://evil.example", "content-type": "text/plain"}, 403, "origin_not_allowed"),
        ({"origin": "null"}, 403, "origin_not_allowed"),
        ({"sec-fetch-site": "cross-site"}, 403, "origin_not_allowed"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-type": ""}, 415, "unsupported_media_type"),
    ],
)
def test_page_of_another_origin_gets_no_answer(
    make: Make, headers: dict[str, str], status: int, code: str | None
) -> None:
    """The request does not reach the models."""
    setting = make(origins=(ORIGIN,))
    client = run(setting.client(fields=asked("a"), headers=headers).run())
    assert client.status == status
    assert code is None or client.json["error"]["code"] == code
    assert len(setting.source.batches) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("origin", "method", "status"),
    [(ORIGIN, "POST", 200), (ORIGIN, "DELETE", 400), ("http://evil.example", "POST", 403), ("null", "POST", 403)],
)
def test_preflight_is_answered_for_allowed_origins_only(make: Make, origin: str, method: str, status: int) -> None:
    """No token is needed, because a browser sends none with a preflight."""
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    setting = make(token=TOKEN, origins=(ORIGIN,))
    client = run(setting.client(CHAT, method="OPTIONS", headers=headers).run())
    assert client.status == status
    if status == 200:
        assert client.header("access-control-allow-origin") == ORIGIN
        assert "POST" in client.header("access-control-allow-methods")
        assert "x-stainless-lang" in client.header("access-control-allow-headers")
    elif status == 403:
        assert client.header("access-control-allow-origin") == ""


def test_allowed_page_can_read_answers_and_errors(make: Make) -> None:
    """The error for a wrong token can be read, too."""
    setting = make(token=TOKEN, origins=(ORIGIN,))
    for token, status in ((TOKEN, 200), ("another", 401)):
        headers = {"origin": ORIGIN, "authorization": f"Bearer {token}"}
        client = run(setting.client(fields=asked("a"), headers=headers).run())
        assert (client.status, client.header("access-control-allow-origin")) == (status, ORIGIN)
