"""The worker thread that generates the answers of queued requests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from codex_ml.errors import ModelError, UserError, release_exception_frames
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece
from codex_ml.io.stoppable_process import WorkerError
from codex_ml.serve.schema import ApiError, too_late


@dataclass(frozen=True)
class Piece:
    """New text of an answer."""

    text: str


Event = Piece | Generation | ApiError


class Job:
    """A request and the events of its answer: pieces, then a `Generation` or an `ApiError`.

    Made and read in the event loop; `deliver` and `unwanted` are for the thread of the models.

    Parameters
    ----------
    name : str
        Identifier of the request.
    model : str
        Which model answers.
    prompt : str or sequence of Turn
        What is asked.
    params : Wish
        How.
    deadline : float
        When, by the clock of the engine, nobody waits for it any longer.
    """

    def __init__(
        self, name: str, model: str, prompt: str | Sequence[Turn], params: GenerationParams, deadline: float
    ) -> None:
        self.name, self.model, self.prompt, self.params, self.deadline = name, model, prompt, params, deadline
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def cancel(self) -> None:
        """Say that nobody waits for the answer."""
        self._cancelled = True

    def unwanted(self, clock: Callable[[], float]) -> bool:
        """Tell whether nobody waits for it: the client left, or its time is over."""
        return self._cancelled or clock() > self.deadline

    def deliver(self, event: Event) -> None:
        """Hand an event to the loop; one that has ended meanwhile needs none."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:
            self._cancelled = True

    async def next_event(self) -> Event:
        """Wait for the next event."""
        return await self._events.get()


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class GenerationParams:
    """What a client asks for of an answer; None leaves it to the service."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


class TextSource(Protocol):
    """Models by name. All but `names` is called by one thread only."""

    def names(self) -> tuple[str, ...]:
        """Return what can be asked for."""
        ...

    def request(self, model: str, prompt: str | Sequence[Turn], params: GenerationParams) -> GenerationRequest:
        """Return the request for a prompt or a chat; a `ValueError` says, without content, why there is none."""
        ...

    def stream(
        self, model: str, requests: Sequence[GenerationRequest], cancelled: Callable[[int], bool]
    ) -> Iterator[StreamedPiece]:
        """Answer requests to one model side by side."""
        ...

    def note(self, name: str, generation: Generation) -> None:
        """Take what became of a request, for the audit."""
        ...


_LOGGER = logging.getLogger(__name__)
_RETRY_SECONDS = 1
_PAUSE_SECONDS = 1.0
# After the grace, for the worker to reach its next token; a thread that hangs in native code is left behind.
_LAST_STEP_SECONDS = 5.0


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
    """Bounds of the engine.

    Attributes
    ----------
    most_running, most_waiting : int
        Requests that are answered side by side, and requests that wait.
    stuck_seconds : float
        Time without a token after which the worker counts as stuck. At least the longest time of a request: nobody
        waits any longer for what it does.
    """

    most_running: int
    most_waiting: int
    stuck_seconds: float = 300.0


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
        self._last_progress = clock()
        self._thread = threading.Thread(target=self._run, name="codex-ml models", daemon=True)

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

    def unhealthy(self) -> str | None:
        """Return why the service must be restarted; None where it need not."""
        if not self._thread.is_alive():
            return None if self._stopping else "the worker thread has ended"
        idle_seconds = self.clock() - self._last_progress
        if self._running and idle_seconds > self._limits.stuck_seconds:
            return f"the worker thread is stuck: no progress for {idle_seconds:.0f} seconds"
        return None

    def unready(self) -> str | None:
        """Return why the next request would not be taken; None where it would."""
        if self._stopping:
            return "the service is stopping"
        if (why := self.unhealthy()) is not None:
            return why
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
        self._thread.join(min(grace_seconds, _LAST_STEP_SECONDS))
        return False

    def give_up(self) -> None:
        """End what is being answered at its next token, and what waits."""
        with self._changed:
            self._stopping = self._gave_up = True
            for job in [*self._running, *self._waiting]:
                job.cancel()
            self._changed.notify()

    def _run(self) -> None:
        """Work until all is done; what escapes from the work ends the requests that it concerns, never the thread."""
        while True:
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - a panic is no Exception, and without this thread nobody is answered
                failed = self._take_failed()
                self._fail(failed, error)
                if not failed and self._pause():
                    return
            else:
                return

    def _pause(self) -> bool:
        """Wait after a fault that concerned no request, or it would repeat at once; tell whether to end instead."""
        with self._changed:
            if not self._stopping:
                self._changed.wait(_PAUSE_SECONDS)
            return self._stopping and not self._waiting

    def _take_failed(self) -> list[Job]:
        """Return the requests that a fault of the worker concerns: those it was at, or else the next one."""
        with self._changed:
            failed, self._running = self._running, []
            if not failed and self._waiting:
                failed = [self._waiting.popleft()]
        return failed

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
                        self._last_progress = self.clock()
                        return batch
                if self._stopping:
                    return []
                self._changed.wait()

    def _answer(self, batch: Sequence[Job]) -> None:
        """Answer some jobs for one model; whatever goes wrong ends these and never the service."""
        jobs: list[Job] = []
        requests: list[GenerationRequest] = []
        for job in batch:
            self._last_progress = self.clock()
            try:
                requests.append(self._source.request(job.model, job.prompt, job.params))
            except ValueError as error:
                job.deliver(ApiError(400, str(error), code="invalid_prompt"))
            except BaseException as error:  # noqa: BLE001 - a request that breaks the code, or makes Rust panic
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
                self._last_progress = self.clock()
                if piece.text:
                    job.deliver(Piece(piece.text))
                if piece.generation is not None:
                    self._finish(job, piece.generation)
                    del open_jobs[piece.index]
        except ModelError as error:
            self._fail(list(open_jobs.values()), error)
        except UserError as error:
            # One of them cannot be answered, as when its prompt grew by redaction: the others are not to suffer.
            if len(jobs) > 1 and len(open_jobs) == len(jobs):
                for job, request in zip(jobs, requests, strict=True):
                    self._stream([job], [request])
                return
            for job in open_jobs.values():
                job.deliver(ApiError(400, error.what, code="invalid_prompt"))
        except BaseException as error:  # noqa: BLE001 - a batch that breaks, or makes Rust panic
            self._fail(list(open_jobs.values()), error)

    def _finish(self, job: Job, generation: Generation) -> None:
        self._source.note(job.name, generation)
        self._observer.answered(job.model, generation)
        job.deliver(too_late() if generation.finish_reason == "cancelled" else generation)

    def _fail(self, jobs: Sequence[Job], error: BaseException) -> None:
        # The kind of the error only: its text may hold what a client sent. That of a `WorkerError` names another kind.
        name = f"{type(error).__name__} ({error})" if isinstance(error, WorkerError) else type(error).__name__
        _LOGGER.error("%s while answering", name)
        for job in jobs:
            try:
                self._observer.failed(job.model)
            except BaseException as fault:  # noqa: BLE001 - who asked is told, whatever counts the failures
                _LOGGER.error("%s while counting a failure", type(fault).__name__)
            job.deliver(ApiError(500, f"the answer failed: {type(error).__name__}", code="internal_error"))
        release_exception_frames(error)
