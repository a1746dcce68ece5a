"""Work in a child process that can be stopped: a worker that hangs is replaced, and none outlives the program."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from codex_ml.io.stoppable_process import StoppableProcess, WorkerError, WorkerLimitError

pytestmark = pytest.mark.timeout(300)


def _answer(question: bytes) -> bytes:
    """Do what the question names; reverse any other question."""
    if question == b"loop":
        while True:
            pass
    if question == b"wait":
        time.sleep(3600)
    if question == b"fill":
        return bytes(4 << 30)
    if question == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if question == b"abort":
        os.abort()
    if question == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if question == b"leave":
        os._exit(0)
    if question == b"raise":
        raise ValueError("a fault")
    if question == b"ids":
        return f"{os.getppid()} {os.getpid()}".encode()
    if question == b"say":
        os.write(2, b"to the terminal")
    return question[::-1]


@pytest.fixture
def process() -> Iterator[StoppableProcess]:
    """Return a process with small limits."""
    made = StoppableProcess(_answer, cpu_seconds=1, wall_seconds=20.0, extra_bytes=1 << 28)
    made.start()
    with closing(made):
        yield made


def _is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_for_the_end_of(process_id: int) -> None:
    for _ in range(6000):
        if not _is_running(process_id):
            return
        time.sleep(0.01)
    pytest.fail("the process is still there")


def test_ask_questions_of_any_length_are_answered(process: StoppableProcess) -> None:
    """One worker answers them in order."""
    assert process.ask(b"") == b""
    assert process.ask(b"abc") == b"cba"
    assert process.ask(b"ab" * 3_000_000) == b"ba" * 3_000_000
    assert process.ask(b"ids") == process.ask(b"ids")


@pytest.mark.parametrize(
    ("question", "kind", "words"),
    [
        (b"loop", WorkerLimitError, "it took more than 1 second of processor time"),
        (b"fill", WorkerLimitError, "it needed more than 256 MiB of memory"),
        (b"abort", WorkerLimitError, "it needed more than 256 MiB of memory, or a native library ended the process"),
        (b"crash", WorkerError, "the process for untrusted input was ended by signal 11"),
        (b"killed", WorkerError, "the process for untrusted input was ended by signal 9"),
        (b"leave", WorkerError, "the process for untrusted input gave no answer: it ended without an answer"),
        (b"raise", WorkerError, "the process for untrusted input failed: ValueError"),
    ],
)
def test_ask_worker_that_fails_is_replaced_and_the_reason_is_told(
    process: StoppableProcess, question: bytes, kind: type[WorkerError], words: str
) -> None:
    """The error class separates limits from faults; a new worker of the same helper answers the next question."""
    helper, worker = process.ask(b"ids").split()
    with pytest.raises(WorkerError, match=f"^{re.escape(words)}$") as caught:
        process.ask(question)
    assert type(caught.value) is kind
    assert process.ask(b"abc") == b"cba"
    next_helper, next_worker = process.ask(b"ids").split()
    assert (next_helper == helper, next_worker == worker) == (True, False)
    assert not _is_running(int(worker))


def test_ask_worker_that_sleeps_is_given_up() -> None:
    """A worker that uses no processor time has a wall-clock limit."""
    process = StoppableProcess(_answer, cpu_seconds=60, wall_seconds=0.5, extra_bytes=1 << 28)
    process.start()
    with closing(process):
        with pytest.raises(WorkerLimitError, match=r"more than 0\.5 seconds"):
            process.ask(b"wait")
        assert process.ask(b"abc") == b"cba"


def test_ask_helper_that_was_killed_is_started_again(process: StoppableProcess) -> None:
    """The system does this when memory runs out; its worker ends with it."""
    helper, worker = map(int, process.ask(b"ids").split())
    os.kill(helper, signal.SIGKILL)
    _wait_for_the_end_of(worker)
    with pytest.raises(WorkerError) as caught:
        process.ask(b"abc")
    assert type(caught.value) is WorkerError
    assert process.ask(b"abc") == b"cba"


def test_close_ends_helper_and_worker(process: StoppableProcess, capfd: pytest.CaptureFixture[str]) -> None:
    """Both end; until then they ignore signals for the program and write nothing to the terminal."""
    helper, worker = map(int, process.ask(b"ids").split())
    for process_id in (helper, worker):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process_id, number)
    assert process.ask(b"say") == b"yas"
    process.close()
    _wait_for_the_end_of(helper)
    _wait_for_the_end_of(worker)
    assert capfd.readouterr() == ("", "")


def test_close_is_final(process: StoppableProcess) -> None:
    """After it, neither a question nor a start creates a process."""
    process.close()
    for again in (process.start, lambda: process.ask(b"abc"), lambda: process.ask(b"abc")):
        with pytest.raises(WorkerError, match="was closed"):
            again()
    process.close()


def test_close_ends_a_question_of_another_thread(process: StoppableProcess) -> None:
    """Closing does not wait for the answer, and no process is started again."""
    helper = int(process.ask(b"ids").split()[0])
    found: list[BaseException] = []

    def ask() -> None:
        try:
            process.ask(b"wait")
        except WorkerError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(120)
    assert [(type(error), "was closed" in str(error)) for error in found] == [(WorkerError, True)]
    _wait_for_the_end_of(helper)


def test_helper_started_later_holds_no_connection_of_the_program(process: StoppableProcess) -> None:
    """A listening socket inherited by a child would keep its port in use after the program ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        helper, worker = map(int, process.ask(b"ids").split())
        os.kill(helper, signal.SIGKILL)
        _wait_for_the_end_of(worker)
        with pytest.raises(WorkerError):
            process.ask(b"abc")
        for process_id in process.ask(b"ids").decode().split():
            held = [str(entry.readlink()) for entry in Path(f"/proc/{process_id}/fd").iterdir()]
            assert len([name for name in held if name.startswith("socket:")]) == 1
            assert all(name.startswith("socket:") or name == os.devnull for name in held)
        assert listening.fileno() > 2


def test_program_that_is_killed_leaves_no_process_behind() -> None:
    """Helper and worker end with the program although `close` was not called."""
    reader, writer = os.pipe()
    program = os.fork()
    if program == 0:
        try:
            made = StoppableProcess(_answer, cpu_seconds=60, wall_seconds=60.0, extra_bytes=1 << 28)
            made.start()
            os.write(writer, made.ask(b"ids") + b"\n")
            threading.Thread(target=made.ask, args=(b"wait",)).start()
            time.sleep(3600)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        helper, worker = map(int, said.readline().split())
    assert _is_running(helper)
    assert _is_running(worker)
    os.kill(program, signal.SIGKILL)
    os.waitpid(program, 0)
    _wait_for_the_end_of(helper)
    _wait_for_the_end_of(worker)
