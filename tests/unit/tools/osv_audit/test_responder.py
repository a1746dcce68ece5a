"""The answers on loopback are what pip-audit reads, and a question that cannot be answered is no clean package."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from osv_audit.database import read_database
from osv_audit.responder import LoopbackService, QuestionError, Responder


def question(name: str = "planted", version: str = "1.0", ecosystem: str = "PyPI") -> dict[str, Any]:
    """Return what pip-audit asks."""
    return {"package": {"name": name, "ecosystem": ecosystem}, "version": version}


@pytest.fixture
def responder(record: Callable[..., Any], archive_of: Any) -> Responder:
    """One that knows a record with every awkward part."""
    awkward = record(
        package="Planted",
        aliases=["CVE-2026-1"],
        published="2026-11-20T00:00:00+00:00",
        affected={
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]},
                {"type": "ECOSYSTEM", "events": [{"introduced": "3.0"}, {"fixed": "3.1"}]},
            ]
        },
    )
    return Responder(read_database(archive_of(awkward)))


def test_answer_affected_version_is_in_the_form_of_pip_audit(responder: Responder) -> None:
    """Canonical name, every fix, a time that ends in Z."""
    (found,) = responder.answer(question())["vulns"]
    assert found["published"] == "2026-11-20T00:00:00Z"
    assert found["affected"][0]["package"] == {"name": "planted", "ecosystem": "PyPI"}
    assert found["affected"][0]["ranges"][0]["events"] == [{"fixed": "2.0"}, {"fixed": "3.1"}]
    assert found["aliases"] == ["CVE-2026-1"]


@pytest.mark.parametrize(("name", "version"), [("planted", "2.0"), ("other", "1.0")])
def test_answer_nothing_known_is_empty(name: str, version: str, responder: Responder) -> None:
    """A mended version, and a package without records."""
    assert responder.answer(question(name, version)) == {}
    assert responder.answered == [(name, version)]


@pytest.mark.parametrize(
    "asked", [None, [], {}, question(version="x"), question(ecosystem="npm"), {"package": "planted"}]
)
def test_answer_question_that_makes_no_sense_is_an_error(asked: object, responder: Responder) -> None:
    """It must not be answered with "nothing known"."""
    with pytest.raises(QuestionError):
        responder.answer(asked)
    assert responder.answered == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/query", json.dumps(question()), 200),
        ("/v1/query", "{", 400),
        ("/v1/querybatch", "{}", 400),
        ("/v1/query", "", 400),
    ],
)
def test_service_on_loopback_answers_by_status(path: str, body: str, status: int, responder: Responder) -> None:
    """An error is an error of HTTP too, which makes pip-audit crash."""
    with LoopbackService(responder) as service:
        address = urlsplit(service.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.request("POST", path, body=body)
        assert connection.getresponse().status == status
        connection.close()
    assert bool(responder.refused) is (status == 400)
