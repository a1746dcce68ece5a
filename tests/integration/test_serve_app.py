"""The application by its ASGI interface, over models that are none: answers, refusals, clients that misbehave."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from served_app import Client, Make, asked, events, run

from codex_ml.serve.app import CHAT, COMPLETIONS, HEALTH, METRICS, MODELS, READY
from codex_ml.serve.engine import GenerationParams, Job


def test_completions_whole_answer_has_text_reason_and_usage(make: Make) -> None:
    """What the interface promises; a limit of the client is kept."""
    setting = make()
    client = run(setting.client(fields=asked("one two three", max_tokens=3)).run())
    assert client.status == 200
    assert client.json["choices"] == [
        {"index": 0, "text": "base: one two ", "logprobs": None, "finish_reason": "length"}
    ]
    assert client.json["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    assert client.json["object"] == "text_completion"


def test_chat_stream_pieces_then_reason_then_usage_then_done(make: Make) -> None:
    """The events of a chat in their order."""
    setting = make()
    fields = {
        "model": "notes",
        "messages": [{"role": "user", "content": "one two"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    found = events(run(setting.client(CHAT, fields=fields).run()))
    assert found[-1] == "[DONE]"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in found[:-2]] == [
        "",
        "notes: ",
        "one ",
        "two ",
        None,
    ]
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert (found[-2]["choices"], found[-2]["usage"]["completion_tokens"]) == ([], 3)
    assert all(chunk["usage"] is None for chunk in found[:-2])
    assert len({chunk["id"] for chunk in found[:-1]}) == 1


def test_completions_many_at_once_each_gets_its_own_answer(make: Make) -> None:
    """Nothing is lost and nothing is mixed up between callers, streams and whole answers of two models."""
    setting = make(most_waiting=200)

    async def body() -> list[Client]:
        clients = [
            setting.client(fields={"model": ("base", "notes")[n % 2], "prompt": f"caller {n}", "stream": n % 3 == 0})
            for n in range(90)
        ]
        return list(await asyncio.gather(*(client.run() for client in clients)))

    for number, client in enumerate(run(body())):
        texts = (
            [chunk["choices"][0]["text"] for chunk in events(client)[:-1]]
            if number % 3 == 0
            else [client.json["choices"][0]["text"]]
        )
        assert "".join(texts) == f"{('base', 'notes')[number % 2]}: caller {number} "


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        (asked("a", model="other"), 404, "model_not_found"),
        (asked("a", n=2), 400, "unsupported_parameter"),
        (asked("a", surprise=1), 400, "unknown_parameter"),
        (asked("a", temperature=3), 400, "invalid_value"),
        (asked("a", max_tokens=51), 400, "invalid_value"),
        (asked("empty"), 400, "invalid_prompt"),
        (asked("empty", stream=True), 400, "invalid_prompt"),
        (asked("unknown"), 500, "internal_error"),
        (asked("unknown", stream=True), 500, "internal_error"),
        ([1], 400, "invalid_json"),
        (asked("x" * 5000), 413, "too_large"),
    ],
)
def test_completions_refusals_have_a_status_and_no_text_of_the_client(
    make: Make, fields: Any, status: int, code: str
) -> None:
    """Also for a stream the status says what happened, because nothing was sent before the first piece."""
    setting = make()
    client = run(setting.client(fields=fields).run())
    assert (client.status, client.json["error"]["code"]) == (status, code)
    assert "text of the client" not in client.content.decode()


def test_stream_model_that_breaks_in_the_middle_says_so_and_is_not_done(make: Make) -> None:
    """The client can tell an answer that was cut from one that ended."""
    setting = make()
    found = events(run(setting.client(fields=asked("broken", stream=True)).run()))
    assert found[0]["choices"][0]["text"] == "base: "
    assert found[-1]["error"]["code"] == "internal_error"
    assert "[DONE]" not in found


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_its_place(make: Make, stream: bool) -> None:
    """Its answer ends at the next token, and the next request is answered."""
    setting = make()

    async def body() -> None:
        client = setting.client(fields=asked("wait", stream=stream))
        running = asyncio.ensure_future(client.run())
        assert await asyncio.to_thread(setting.source.begun.wait, 10)
        if stream:
            await client.answered.wait()
        client.left.set()
        await running
        after = await setting.client(fields=asked("after")).run()
        assert after.json["choices"][0]["text"] == "base: after "

    run(body())
    assert setting.source.noted[0].endswith("cancelled")


def test_client_that_stops_to_read_is_given_up(make: Make) -> None:
    """Its connection is ended after a while; nobody else waits for it."""
    setting = make(send_seconds=0.3)

    async def body() -> None:
        with pytest.raises(ConnectionAbortedError):
            await setting.client(fields=asked("wait", stream=True), reads=False).run()
        after = await setting.client(fields=asked("after")).run()
        assert after.status == 200

    run(body())


def test_answer_that_takes_too_long_is_ended(make: Make) -> None:
    """504 for a whole answer."""
    setting = make(request_seconds=0.3)
    client = run(setting.client(fields=asked("wait")).run())
    assert (client.status, client.json["error"]["code"]) == (504, "timeout")


def test_answer_that_would_wait_too_long_is_not_waited_for(make: Make) -> None:
    """One that waits behind a long answer is told when its own time is over, not when the other ends."""
    setting = make(request_seconds=0.4, most_running=1)

    async def body() -> None:
        long = Job("long", "base", "wait", GenerationParams(), float("inf"))
        setting.engine.submit(long)
        assert await asyncio.to_thread(setting.source.begun.wait, 10)
        for stream in (True, False):
            client = await setting.client(fields=asked("behind", stream=stream)).run()
            assert (client.status, client.json["error"]["code"]) == (504, "timeout")

    run(body())


def test_models_metrics_and_unknown_routes(make: Make) -> None:
    """What there is, what was counted, and where to look; no page that loads scripts from elsewhere."""
    setting = make()
    assert [one["id"] for one in run(setting.client(MODELS, method="GET").run()).json["data"]] == ["base", "notes"]
    assert run(setting.client(f"{MODELS}/notes", method="GET").run()).json["id"] == "notes"
    run(setting.client(fields=asked("one")).run())
    metrics = run(setting.client(METRICS, method="GET").run()).content.decode()
    assert 'codex_ml_answers_total{finish_reason="stop",model="base"} 1.0' in metrics
    assert 'codex_ml_responses_total{route="/v1/completions",status="200"} 1.0' in metrics
    assert "codex_ml_requests_waiting 0.0" in metrics
    for path in ("/docs", "/openapi.json", "/other"):
        client = run(setting.client(path, method="GET").run())
        assert (client.status, COMPLETIONS in client.json["error"]["message"]) == (404, True)


def test_ready_is_no_while_it_stops_and_health_is_yes(make: Make) -> None:
    """A balancer sends nothing more; a watcher does not kill it."""
    setting = make()
    assert run(setting.client(READY, method="GET").run()).status == 200
    setting.engine.stop(5.0)
    assert run(setting.client(READY, method="GET").run()).status == 503
    assert run(setting.client(HEALTH, method="GET").run()).status == 200
    assert run(setting.client(fields=asked("a")).run()).status == 503


@pytest.mark.parametrize("prompt", ["panic", "panics"])
@pytest.mark.parametrize("stream", [True, False])
def test_library_that_panics_answers_500_and_the_service_goes_on(make: Make, prompt: str, stream: bool) -> None:
    """The request ends with an error, the next is answered, and the health checks agree."""
    setting = make()
    client = run(setting.client(fields=asked(prompt, stream=stream)).run())
    error = events(client)[-1]["error"] if stream and prompt == "panics" else client.json["error"]
    assert error["code"] == "internal_error"
    after = run(setting.client(fields=asked("after")).run())
    assert after.json["choices"][0]["text"] == "base: after "
    for path in (HEALTH, READY):
        assert run(setting.client(path, method="GET").run()).status == 200


def test_health_of_a_dead_worker_is_503(make: Make) -> None:
    """So that a supervisor starts the service again."""
    setting = make()
    setting.engine._thread = threading.Thread()  # one that does not live
    client = run(setting.client(HEALTH, method="GET").run())
    assert (client.status, client.content) == (503, b"the worker thread has ended\n")
    assert run(setting.client(READY, method="GET").run()).status == 503
