"""The thread that owns the models: takes requests from a bounded queue, those of one model together, in their order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from codex_ml.errors import UserError, free_what_failed
from codex_ml.generation.requests import Generation, GenerationRequest
from codex_ml.serve.api_error import ApiError, too_late
from codex_ml.serve.job import Job, Piece
from codex_ml.serve.text_source import TextSource

_LOGGER = logging.getLogger(__name__)
_RETRY_SECONDS = 1


class Observer(Protocol):
    """Counts what happens; called by the thread of the models."""

    def answered(self, model: str, generation: Generation) -> None:
        """Take a finished answer."""
        ...

    def failed(self, model: str) -> None:
        """Take a request that ended in a fault of the service."""
        ...


@dataclass(frozen=True)
class Limits:
    """How much is taken at once: requests that are answered side by side, and requests that wait."""

    most_running: int
    most_waiting: int


class Engine:
    """Answers jobs, one batch after the other.

    Parameters
    ----------
    source : TextSource
        The models.
    limits : Limits
        Bounds.
    observer : Observer
        Counts.
    clock : callable
        Gives seconds that only grow.
    """

    def __init__(
        self,
        source: TextSource,
        limits: Limits,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._limits, self._observer, self.clock = source, limits, observer, clock
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._stopping = self._gave_up = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="codex-ml models", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self._running)

    def unready(self) -> str | None:
        """Say why the next request would not be taken; None where it would."""
        if not self._thread.is_alive():
            return "the thread of the models has ended"
        if self._stopping:
            return "the service is stopping"
        return "the queue is full" if self.waiting >= self._limits.most_waiting else None

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises
        ------
        ApiError
            429 when the queue is full, 503 when nothing is taken any more.
        """
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise ApiError(503, "the service takes no requests: it is stopping", code="stopping")
            if self.waiting >= self._limits.most_waiting:
                raise ApiError(
                    429,
                    f"{self.waiting} requests wait already: try again later",
                    code="queue_full",
                    retry_after_seconds=_RETRY_SECONDS,
                )
            self._waiting.append(job)
            self._changed.notify()

    def stop(self, grace_seconds: float) -> bool:
        """Take nothing more, and wait for what was taken; after the grace what is left is given up.

        Returns
        -------
        bool
            Whether all that was taken was answered.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(grace_seconds)
        if not self._thread.is_alive():
            return not self._gave_up
        self.give_up()
        self._thread.join(grace_seconds)
        return False

    def give_up(self) -> None:
        """End what is being answered at its next token, and what waits."""
        with self._changed:
            self._stopping = self._gave_up = True
            for job in [*self._running, *self._waiting]:
                job.cancel()
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)
            with self._changed:
                self._running = []

    def _next_batch(self) -> list[Job]:
        """Wait for requests; return the oldest with those of the same model, and none when all is done."""
        with self._changed:
            while True:
                while self._waiting:
                    model = self._waiting[0].model
                    batch: list[Job] = []
                    later: deque[Job] = deque()
                    for job in self._waiting:
                        if job.unwanted(self.clock):
                            job.deliver(too_late())
                        elif job.model == model and len(batch) < self._limits.most_running:
                            batch.append(job)
                        else:
                            later.append(job)
                    self._waiting = later
                    if batch:
                        self._running = batch
                        return batch
                if self._stopping:
                    return []
                self._changed.wait()

    def _answer(self, batch: Sequence[Job]) -> None:
        """Answer some jobs for one model; whatever goes wrong ends these and never the service."""
        jobs: list[Job] = []
        requests: list[GenerationRequest] = []
        for job in batch:
            try:
                requests.append(self._source.request(job.model, job.prompt, job.wish))
            except ValueError as error:
                job.deliver(ApiError(400, str(error), code="invalid_prompt"))
            except Exception as error:  # noqa: BLE001 - a request that breaks the code must not end the service
                self._fail([job], error)
            else:
                jobs.append(job)
        if jobs:
            self._stream(jobs, requests)

    def _stream(self, jobs: Sequence[Job], requests: Sequence[GenerationRequest]) -> None:
        open_jobs = dict(enumerate(jobs))
        model = jobs[0].model
        try:
            for piece in self._source.stream(model, requests, lambda index: jobs[index].unwanted(self.clock)):
                job = jobs[piece.index]
                if piece.text:
                    job.deliver(Piece(piece.text))
                if piece.generation is not None:
                    del open_jobs[piece.index]
                    self._finish(job, piece.generation)
        except UserError as error:
            # One of them cannot be answered, as when its prompt grew by redaction: the others are not to suffer.
            if len(jobs) > 1 and len(open_jobs) == len(jobs):
                for job, request in zip(jobs, requests, strict=True):
                    self._stream([job], [request])
                return
            for job in open_jobs.values():
                job.deliver(ApiError(400, error.what, code="invalid_prompt"))
        except Exception as error:  # noqa: BLE001 - a batch that breaks must not end the service
            self._fail(list(open_jobs.values()), error)

    def _finish(self, job: Job, generation: Generation) -> None:
        self._source.note(job.name, generation)
        self._observer.answered(job.model, generation)
        job.deliver(too_late() if generation.finish_reason == "cancelled" else generation)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        # The kind of the error only: its text may hold what a client sent.
        _LOGGER.error("%s while answering", type(error).__name__)
        for job in jobs:
            self._observer.failed(job.model)
            job.deliver(ApiError(500, f"the answer failed: {type(error).__name__}", code="internal_error"))
        free_what_failed(error)
