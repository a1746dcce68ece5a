"""What the service counts, in the text format of Prometheus; names of models and numbers, never content."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from codex_ml.generation.requests import Generation

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
