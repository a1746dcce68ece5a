"""`codex-ml serve` as a user runs it, with the client of OpenAI unchanged: answers, callers at once, and the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

pytestmark = pytest.mark.slow
QUESTION = "What is 3 plus 4? "
TOKEN = "a-token-of-a-test-only"


@dataclass
class Served:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str]
    directory: Path

    def client(self, token: str = "none", **options: object) -> openai.OpenAI:
        """Return the official client; it tries nothing again."""
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=token, max_retries=0, timeout=120, **options
        )

    def read(self, path: str) -> tuple[int, str]:
        """Return status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(180)


def started(command_line, directory: Path, *arguments: str, **environment: str) -> Served:
    """Start a service and wait until it listens."""
    process = subprocess.Popen(
        command_line.command("serve", "serve.port=0", *arguments),
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"serving on http://.*:(\d+)", line):
            reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
            reader.start()
            return Served(process, int(found.group(1)), lines, directory)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def runs(command_line, tmp_path_factory, tiny_llama_directory, small_records):
    """Return a directory with two adapters over one base."""
    directory = tmp_path_factory.mktemp("user")
    for number, name in enumerate(("first", "second"), start=1):
        answer = command_line.run(
            "train",
            f"model.path={tiny_llama_directory}",
            f"data.path={small_records}",
            f"run.name={name}",
            f"run.seed={number}",
            f"training.max_steps={4 * number}",
            "training.learning_rate=2e-2",
            directory=directory,
        )
        assert answer.returncode == 0, answer.stderr
    return directory


@pytest.fixture(scope="module")
def served(command_line, runs) -> Iterator[Served]:
    """Return a service of the base and both adapters."""
    adapters = []
    for name in ("first", "second"):
        (run,) = (runs / "runs").glob(f"*-{name}")
        adapters += ["--adapter", f"{name}={run}"]
    service = started(command_line, runs, *adapters)
    yield service
    assert service.stop() == 0
    # Nothing that a client said stands in what the service says.
    assert "plus" not in "".join(service.lines)


def test_serve_client_finds_models_and_each_answers_for_itself(served: Served, command_line, runs) -> None:
    """The base and both adapters differ; each says what `generate` says with it."""
    client = served.client()
    names = [model.id for model in client.models.list()]
    assert names == ["base", "first", "second"]
    said = {
        name: client.completions.create(model=name, prompt=QUESTION, max_tokens=12).choices[0].text for name in names
    }
    assert len(set(said.values())) == 3
    for name in ("first", "second"):
        (run,) = (runs / "runs").glob(f"*-{name}")
        answer = command_line.run(
            "generate", "--checkpoint", str(run), "--prompt", QUESTION, "--max-new-tokens=12", directory=runs
        )
        # What is printed ends its line, and shows control characters by their codes.
        shown = "".join(mark if mark.isprintable() or mark in "\n\t" else ascii(mark)[1:-1] for mark in said[name])
        assert answer.stdout == shown + ("" if shown.endswith("\n") else "\n")


def test_serve_client_chat_and_stream_say_the_same(served: Served) -> None:
    """A chat as a whole and as a stream, with usage; what is not supported is refused by name."""
    client = served.client()
    chat = {"model": "first", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 10}
    whole = client.chat.completions.create(**chat)
    pieces = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == (
        whole.choices[0].message.content
    )
    assert pieces[-1].usage == whole.usage
    assert whole.usage.completion_tokens <= 10
    with pytest.raises(openai.BadRequestError, match="n is not supported"):
        client.chat.completions.create(**chat, n=2)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="third", prompt="a")


def test_serve_callers_at_once_get_what_they_get_alone(served: Served) -> None:
    """Three models, sampled with a seed each: nothing is lost or mixed up between eight callers."""
    client = served.client()

    def ask(number: int) -> str:
        answer = client.completions.create(
            model=("base", "first", "second")[number % 3],
            prompt=f"What is {number} plus {number + 1}? ",
            max_tokens=8,
            temperature=0.9,
            seed=number,
        )
        return answer.choices[0].text

    alone = [ask(number) for number in range(24)]
    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(ask, range(24))) == alone
    assert len(set(alone)) > 12


@pytest.mark.safety
def test_serve_secret_of_a_prompt_is_redacted_and_noted_by_rule_only(served: Served) -> None:
    """The audit has rule and place; no file of the directory holds what was said."""
    secret = "ann.example@hospital.example.org"
    served.client().completions.create(model="base", prompt=f"Write to {secret}", max_tokens=4)
    (log,) = (served.directory / "runs" / "generation").iterdir()
    assert "email" in log.read_text("utf-8")
    for path in served.directory.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_serve_asked_to_stop_answers_what_it_took(command_line, runs, tiny_llama_directory) -> None:
    """SIGTERM while a stream is read: it comes to its end, new ones are refused, and the exit code is 0."""
    service = started(command_line, runs, "--model", str(tiny_llama_directory))
    client = service.client()
    stream = client.completions.create(model="base", prompt="a", max_tokens=300, stream=True)
    first = next(iter(stream))
    assert first.choices
    service.process.send_signal(signal.SIGTERM)
    reasons = [piece.choices[0].finish_reason for piece in stream if piece.choices]
    assert reasons[-1] in ("length", "stop")
    assert service.process.wait(180) == 0
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_serve_asked_twice_ends_at_once(command_line, runs, tiny_llama_directory) -> None:
    """The second signal cuts answers short, which the exit code says."""
    service = started(command_line, runs, "--model", str(tiny_llama_directory), "serve.grace_seconds=100")
    client = service.client()

    def ask() -> None:
        with pytest.raises(openai.OpenAIError):
            client.completions.create(model="base", prompt="a", max_tokens=480)

    wishes = [threading.Thread(target=ask, daemon=True) for _ in range(24)]
    for wish in wishes:
        wish.start()
    while not re.search(r"codex_ml_requests_waiting [1-9]", service.read("/metrics")[1]):
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    # Two signals of a kind are one while the first waits to be heard.
    while service.read("/readyz")[0] == 200:
        time.sleep(0.01)
    begun = time.monotonic()
    assert service.stop() == 143
    assert time.monotonic() - begun < 50


@pytest.mark.safety
def test_serve_beyond_loopback_needs_a_token_and_then_asks_for_it(
    command_line, runs, tiny_llama_directory, tmp_path
) -> None:
    """Without one it does not start; with one the client shows it. The token is in no line that is printed."""
    arguments = ("--model", str(tiny_llama_directory), "serve.host=0.0.0.0")
    answer = command_line.run("serve", *arguments, directory=runs)
    assert answer.returncode == 2
    assert "no bearer token is set" in answer.stderr
    (tmp_path / "token").write_text(TOKEN)
    service = started(command_line, runs, *arguments, "--token-file", str(tmp_path / "token"))
    assert [model.id for model in service.client(TOKEN).models.list()] == ["base"]
    with pytest.raises(openai.AuthenticationError):
        service.client("another").models.list()
    assert service.stop() == 0
    assert TOKEN not in "".join(service.lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--adapter", "first"), "a name and a checkpoint are needed"),
        (("--adapter", "a=best", "--adapter", "a=latest"), "given twice"),
        (("--adapter", "a=base"), "the base is always served"),
        (("--adapter", "base=best"), "serve.base_name"),
        (("--model", ".", "serve.port=99999"), "serve.port"),
        (("--model", ".", "training.epochs=3"), "training.epochs: has no effect on serve"),
        (("--adapter", "a=best", "--token-file", "absent"), "the bearer token cannot be read"),
    ],
)
def test_serve_unclear_wishes_are_refused(command_line, runs, arguments, words) -> None:
    """One block, exit code 2, no traceback; nothing listens."""
    answer = command_line.run("serve", *arguments, directory=runs)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_serve_port_that_is_taken_is_said(command_line, served: Served, runs, tiny_llama_directory) -> None:
    """With what to do."""
    answer = command_line.run(
        "serve", "--model", str(tiny_llama_directory), f"serve.port={served.port}", directory=runs
    )
    assert answer.returncode == 2
    assert f"cannot listen on 127.0.0.1:{served.port}" in answer.stderr
