"""Answers pip-audit's questions from the database on this machine: the query of the OSV service, on loopback only.

pip-audit judges no version itself: what is answered is what it reports. So each answer holds the advisories that
speak of the version asked for, in the form pip-audit reads without stumbling (canonical names, times that end in ``Z``,
borders that are versions of PEP 440).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from osv_audit.database import Database
from osv_audit.matching import is_affected
from osv_audit.records import ECOSYSTEM, Advisory

MAX_QUESTION_BYTES = 64 * 1024
PATH = "/v1/query"


class QuestionError(ValueError):
    """A question that cannot be answered; it is answered with an error and never with "nothing known"."""


@dataclass
class Responder:
    """What is known of a package, by the questions of pip-audit; remembers which were answered."""

    database: Database
    answered: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._index = self.database.by_package()

    def answer(self, question: object) -> dict[str, Any]:
        """Return what pip-audit expects for a question: ``{}``, or the advisories under ``vulns``.

        Raises
        ------
        QuestionError
            If it asks of another ecosystem, or of a version that is none of PEP 440.
        """
        try:
            name = canonicalize_name(question["package"]["name"])  # type: ignore[index]
            ecosystem = question["package"]["ecosystem"]  # type: ignore[index]
            version = str(question["version"])  # type: ignore[index]
            Version(version)
        except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
            raise QuestionError(f"cannot be answered: {error}") from error
        if ecosystem != ECOSYSTEM:
            raise QuestionError(f"asks of the ecosystem {ecosystem}")
        found = [
            _for_pip_audit(advisory, name)
            for advisory in self._index.get(name, ())
            if any(package.name == name and is_affected(version, package) for package in advisory.affected)
        ]
        self.answered.append((name, version))
        return {"vulns": found} if found else {}


def _for_pip_audit(advisory: Advisory, name: str) -> dict[str, Any]:
    fixes = sorted(_fixes(advisory, name))
    record: dict[str, Any] = {
        "id": advisory.identifier,
        "aliases": list(advisory.aliases),
        "summary": advisory.summary,
        "affected": [
            {
                "package": {"name": name, "ecosystem": ECOSYSTEM},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": str(version)} for version in fixes]}],
            }
        ],
    }
    if advisory.published is not None:
        record["published"] = f"{advisory.published:%Y-%m-%dT%H:%M:%SZ}"
    return record


def _fixes(advisory: Advisory, name: str) -> set[Version]:
    fixes = set()
    for package in advisory.affected:
        for event in (event for events in package.ranges for event in events):
            if package.name == name and event.kind == "fixed":
                try:
                    fixes.add(Version(event.version))
                except InvalidVersion:
                    continue
    return fixes


class LoopbackService(AbstractContextManager["LoopbackService"]):
    """Serves a responder on a free port of 127.0.0.1 while the block runs."""

    def __init__(self, responder: Responder) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(responder))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="osv", daemon=True)

    @property
    def url(self) -> str:
        """Where pip-audit asks."""
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def __enter__(self) -> LoopbackService:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(responder: Responder) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        """One question a request."""

        def do_POST(self) -> None:
            """Answer a question."""
            try:
                length = int(self.headers.get("Content-Length", ""))
                if self.path != PATH or not 0 < length <= MAX_QUESTION_BYTES:
                    raise QuestionError("is no query of OSV")
                question = json.loads(self.rfile.read(length))
                with lock:
                    answer: Mapping[str, Any] = responder.answer(question)
            except ValueError as error:
                with lock:
                    responder.refused.append(str(error))
                self._send(400, {"message": str(error)})
            else:
                self._send(200, answer)

        def _send(self, status: int, answer: Mapping[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name in http.server)
            """Say nothing: the report says what was asked."""

    return Handler
