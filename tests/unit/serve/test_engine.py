"""The queue and the thread of the models: order, bounds, faults that stay with their request, and the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from fake_source import Counted, FakeSource

from codex_ml.generation.requests import Generation
from codex_ml.serve.engine import Engine, GenerationParams, Job, Limits, Piece
from codex_ml.serve.schema import ApiError

Start = Callable[..., Engine]


@pytest.fixture
def source() -> FakeSource:
    """Return the models."""
    return FakeSource()


@pytest.fixture
def start(source: FakeSource) -> Iterator[Start]:
    """Return what makes an engine; it is stopped after the test."""
    engines: list[Engine] = []

    def make(most_running: int = 4, most_waiting: int = 8, counted: Counted | None = None) -> Engine:
        engines.append(Engine(source, Limits(most_running, most_waiting), counted or Counted()))
        return engines[-1]

    yield make
    source.go.set()
    for engine in engines:
        engine.give_up()


def job(prompt: str, model: str = "base", seconds: float = 60.0, engine: Engine | None = None) -> Job:
    """Return a job whose time is over after some seconds."""
    now = engine.clock() if engine is not None else 0.0
    return Job(
        f"job {prompt}", model, prompt, GenerationParams(), now + seconds if engine is not None else float("inf")
    )


async def answer(of: Job) -> tuple[str, Generation | ApiError]:
    """Return the joined text of an answer, and how it ended."""
    text = ""
    while True:
        event = await asyncio.wait_for(of.next_event(), 20)
        if not isinstance(event, Piece):
            return text, event
        text += event.text


def run(body: Coroutine[Any, Any, Any]) -> Any:
    """Run something asynchronous."""
    return asyncio.run(body)


def test_answer_requests_of_one_model_share_a_batch_and_none_is_mixed_up(source: FakeSource, start: Start) -> None:
    """Those that wait are taken by the model of the oldest, in their order, as many as fit."""
    engine = start(most_running=2)

    async def body() -> list[tuple[str, Generation | ApiError]]:
        jobs = [job("a one"), job("b", "notes"), job("c three"), job("d four"), job("e", "notes")]
        for one in jobs:
            engine.submit(one)
        engine.start()
        return [await answer(one) for one in jobs]

    answers = run_unstarted(engine, body)
    assert [text for text, _ in answers] == [
        "base: a one ",
        "notes: b ",
        "base: c three ",
        "base: d four ",
        "notes: e ",
    ]
    assert source.batches == [("base", ["a one", "c three"]), ("notes", ["b", "e"]), ("base", ["d four"])]
    assert len(source.noted) == 5


def run_unstarted(engine: Engine, body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run with an engine that takes jobs before its thread lives."""

    class AliveBefore(type(engine._thread)):  # type: ignore[misc]
        """Says that it lives, as it will in a moment."""

        def is_alive(self) -> bool:
            return True if not self._started.is_set() else super().is_alive()

    engine._thread.__class__ = AliveBefore
    return run(body())


def test_submit_full_queue_is_refused_with_when_to_come_again(source: FakeSource, start: Start) -> None:
    """One is answered, two wait, the fourth is told to come later; ready says so too."""
    engine = start(most_running=1, most_waiting=2)

    async def body() -> None:
        engine.start()
        jobs = [job("wait"), job("b"), job("c")]
        engine.submit(jobs[0])
        assert await asyncio.to_thread(source.begun.wait, 10)
        for one in jobs[1:]:
            engine.submit(one)
        assert engine.unready() == "the queue is full"
        with pytest.raises(ApiError) as caught:
            engine.submit(job("d"))
        assert (caught.value.status, caught.value.headers()) == (429, {"Retry-After": "1"})
        source.go.set()
        assert [(await answer(one))[0] for one in jobs] == ["base: wait ", "base: b ", "base: c "]
        assert engine.unready() is None

    run(body())


@pytest.mark.parametrize(("prompt", "status"), [("empty", 400), ("grows", 400), ("unknown", 500)])
def test_answer_request_that_cannot_be_answered_takes_no_other_with_it(
    source: FakeSource, start: Start, prompt: str, status: int
) -> None:
    """The others of its batch are answered, and no text of the client is in the error."""
    engine = start()
    source.go.set()

    async def body() -> None:
        jobs = [job("a"), job(prompt), job("c")]
        for one in jobs:
            engine.submit(one)
        engine.start()
        texts = [await answer(one) for one in jobs]
        assert [text for text, _ in texts] == ["base: a ", "", "base: c "]
        error = texts[1][1]
        assert isinstance(error, ApiError)
        assert (error.status, "text of the client" in error.message) == (status, False)

    run_unstarted(engine, body)


def test_answer_model_that_breaks_ends_its_batch_and_the_service_lives_on(start: Start) -> None:
    """500 for those at work, the next request is answered."""
    counted = Counted()
    engine = start(counted=counted)

    async def body() -> None:
        engine.start()
        engine.submit(broken := job("broken"))
        text, error = await answer(broken)
        assert text == "base: "
        assert isinstance(error, ApiError)
        assert (error.status, error.message) == (500, "the answer failed: RuntimeError")
        engine.submit(after := job("after"))
        assert (await answer(after))[0] == "base: after "
        assert engine.unready() is None

    run(body())
    assert counted.failures == ["base"]
    assert counted.answers == ["base stop"]


def test_answer_time_that_is_over_ends_a_request_at_work_and_one_that_waits(source: FakeSource, start: Start) -> None:
    """Both are told so; nothing is computed for the one that waited."""
    engine = start(most_running=1)

    async def body() -> None:
        engine.start()
        first = job("wait", seconds=0.3, engine=engine)
        engine.submit(first)
        assert await asyncio.to_thread(source.begun.wait, 10)
        engine.submit(second := job("b", seconds=0.05, engine=engine))
        for one in (first, second):
            _, error = await answer(one)
            assert isinstance(error, ApiError)
            assert error.status == 504

    run(body())
    assert [prompts for _, prompts in source.batches] == [["wait"]]


def test_stop_answers_what_was_taken_and_takes_nothing_more(source: FakeSource, start: Start) -> None:
    """Within the grace all is answered; a request that comes then is refused."""
    engine = start(most_running=1)

    async def body() -> None:
        engine.start()
        jobs = [job("wait"), job("b")]
        engine.submit(jobs[0])
        assert await asyncio.to_thread(source.begun.wait, 10)
        engine.submit(jobs[1])
        stopping = asyncio.ensure_future(asyncio.to_thread(engine.stop, 20.0))
        await asyncio.sleep(0.05)
        assert engine.unready() == "the service is stopping"
        with pytest.raises(ApiError) as caught:
            engine.submit(job("c"))
        assert caught.value.status == 503
        source.go.set()
        assert [(await answer(one))[0] for one in jobs] == ["base: wait ", "base: b "]
        assert await stopping is True

    run(body())


def test_stop_after_the_grace_gives_up_what_is_left(source: FakeSource, start: Start) -> None:
    """Whoever still waits is told, and the thread ends."""
    engine = start(most_running=1)

    async def body() -> None:
        engine.start()
        jobs = [job("wait"), job("b")]
        engine.submit(jobs[0])
        assert await asyncio.to_thread(source.begun.wait, 10)
        engine.submit(jobs[1])
        assert await asyncio.to_thread(engine.stop, 0.2) is False
        for one in jobs:
            assert isinstance((await answer(one))[1], ApiError)
        assert engine.unready() == "the service is stopping"

    run(body())
    assert [prompts for _, prompts in source.batches] == [["wait"]]


@pytest.mark.parametrize("prompt", ["panic", "panics"])
def test_answer_library_that_panics_ends_one_batch_only(start: Start, prompt: str) -> None:
    """A panic is not an `Exception`; the worker keeps running and answers the next request."""
    counted = Counted()
    engine = start(counted=counted)

    async def body() -> None:
        engine.start()
        engine.submit(broken := job(prompt))
        _, error = await answer(broken)
        assert isinstance(error, ApiError)
        assert (error.status, error.message) == (500, "the answer failed: PanicException")
        engine.submit(after := job("after"))
        assert (await answer(after))[0] == "base: after "
        assert engine.unhealthy() is None

    run(body())
    assert counted.failures == ["base"]


class _Escaping(Counted):
    """Observer that fails while it counts a failure or an answer."""

    def failed(self, model: str) -> None:
        """Count, and fail."""
        super().failed(model)
        raise SystemExit

    def answered(self, model: str, generation: Generation) -> None:
        """Count, and fail the first time."""
        super().answered(model, generation)
        if len(self.answers) == 1:
            raise SystemExit


def test_worker_fault_of_the_observer_leaves_the_worker_running(start: Start) -> None:
    """Every request of the batch gets an error, even if the observer fails repeatedly; the next one is answered."""
    counted = _Escaping()
    engine = start(counted=counted)

    async def body() -> None:
        jobs = [job("broken"), job("b c d")]
        for one in jobs:
            engine.submit(one)
        engine.start()
        for one in jobs:
            _, error = await answer(one)
            assert isinstance(error, ApiError)
            assert error.status == 500
        engine.submit(uncounted := job("uncounted"))
        assert isinstance((await answer(uncounted))[1], ApiError)
        engine.submit(after := job("after"))
        assert (await answer(after))[0] == "base: after "
        assert engine.unhealthy() is None

    run_unstarted(engine, body)
    assert counted.failures == ["base"] * 3


class _Failing(Engine):
    """Engine that fails outside of any request."""

    rounds = 0

    def _work(self) -> None:
        self.rounds += 1
        raise MemoryError


def test_worker_fault_without_a_request_does_not_repeat_at_once(source: FakeSource) -> None:
    """A request during the pause gets an error at once, and the thread ends when asked."""
    engine = _Failing(source, Limits(4, 8), Counted())

    async def body() -> None:
        started = time.monotonic()
        engine.start()
        await asyncio.sleep(0.3)
        # The pause between two rounds is one second.
        assert engine.rounds <= 2 + time.monotonic() - started
        engine.submit(one := job("a"))
        error = (await answer(one))[1]
        assert isinstance(error, ApiError)
        assert error.message == "the answer failed: MemoryError"
        assert await asyncio.to_thread(engine.stop, 60.0)

    run(body())


def test_unhealthy_worker_without_progress_counts_as_stuck(source: FakeSource) -> None:
    """The engine measures progress by its own clock; a worker that waits for requests is healthy."""
    now = [0.0]
    engine = Engine(source, Limits(4, 8, stuck_seconds=100.0), Counted(), lambda: now[0])
    assert engine.unhealthy() == "the worker thread has ended"

    async def body() -> None:
        engine.start()
        now[0] = 1000.0
        assert engine.unhealthy() is None
        engine.submit(waits := job("wait"))
        assert await asyncio.to_thread(source.begun.wait, 10)
        # The model gives its first piece and then no more.
        assert isinstance(await asyncio.wait_for(waits.next_event(), 20), Piece)
        now[0] += 99.0
        assert engine.unhealthy() is None
        now[0] += 2.0
        assert engine.unhealthy() == "the worker thread is stuck: no progress for 101 seconds"
        assert engine.unready() == engine.unhealthy()
        source.go.set()
        await answer(waits)

    run(body())
    assert engine.stop(20.0)
    assert engine.unhealthy() is None
