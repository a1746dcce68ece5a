"""Calls into native libraries: what they say on standard error comes through, except when they panic."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from codex_ml.errors import StopSignal, is_panic
from codex_ml.io.native_calls import NativePanicError, native_call, panic_as_error
from codex_ml.io.stopping import StopRequest


def _say_and_stop() -> None:
    os.write(2, b"said")
    raise KeyboardInterrupt


def _panic() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$|."), "isolated", invert=False)
    tokenizer.encode("a" * 40 + "b")


def test_is_panic_tells_panics_from_other_errors(capfd: Any) -> None:
    """A panic is no `Exception`."""
    with pytest.raises(BaseException, match="retry-limit") as caught:
        _panic()
    assert is_panic(caught.value)
    assert not isinstance(caught.value, Exception)
    assert not is_panic(ValueError())
    assert not is_panic(KeyboardInterrupt())
    capfd.readouterr()


def test_native_call_output_of_a_call_that_works_is_shown(capfd: Any) -> None:
    """In its order, also when calls are nested."""
    with native_call(), native_call():
        os.write(2, b"a warning\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a warning\nafter\n"


def test_native_call_output_of_a_panic_is_dropped(capfd: Any) -> None:
    """Also in another thread; other errors keep what was said."""
    with pytest.raises(NativePanicError), native_call():
        _panic()
    found: list[BaseException] = []

    def work() -> None:
        try:
            with native_call():
                _panic()
        except NativePanicError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt), native_call():
        _say_and_stop()
    assert capfd.readouterr().err == "said"


STOPPED_AT_ANY_INSTANT = """
import contextlib, os, signal, sys
from codex_ml.io import native_calls
from codex_ml.io import stopping
from codex_ml.errors import StopSignal

request, before = stopping.StopRequest(), os.fstat(2)
descriptors = len(os.listdir("/proc/self/fd"))
files = {native_calls.__file__, stopping.__file__, contextlib.__file__, "<string>"}
executed = 0

def trace(frame, event, argument):
    global executed
    if frame.f_code.co_filename not in files:
        return None
    frame.f_trace_opcodes = True
    if event == "opcode":
        executed += 1
        if executed == instant:
            sys.settrace(None)
            request.leave(signal.SIGTERM)
    return trace

def call_twice():
    with native_calls.native_call(request):
        pass
    with native_calls.native_call(request):
        pass

instant, stops = 1, 0
while True:
    executed = 0
    try:
        sys.settrace(trace)
        call_twice()
    except StopSignal:
        stops += 1
    sys.settrace(None)
    assert os.path.samestat(os.fstat(2), before), instant
    if executed < instant:
        break
    instant += 1
assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
os.write(2, b"heard")
print("every instant stopped" if stops == instant - 1 > 100 else (stops, instant))
"""


def test_native_call_stop_signals_lose_no_standard_error() -> None:
    """A handler raises before any one instruction; standard error is the same file before and after.

    In a process of its own, because coverage traces the instructions of this one.
    """
    done = subprocess.run([sys.executable, "-c", STOPPED_AT_ANY_INSTANT], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"every instant stopped\n", b"heard")


def test_native_call_signal_in_the_block_is_raised_at_its_end() -> None:
    """It is deferred, not lost."""
    request = StopRequest()
    done = []

    def ask_to_stop() -> None:
        with native_call(request):
            request.leave(signal.SIGTERM)
            done.append("the rest of the block")

    with pytest.raises(StopSignal) as stopped:
        ask_to_stop()
    assert (done, stopped.value.exit_code) == (["the rest of the block"], 143)
    with native_call(request):
        pass
    with pytest.raises(StopSignal):
        request.leave(signal.SIGHUP)


def test_native_call_overlapping_threads_write_when_the_last_one_leaves(capfd: Any) -> None:
    """The first to enter leaves first."""
    entered, left = threading.Event(), threading.Event()

    def work() -> None:
        with native_call():
            entered.set()
            assert left.wait(60)
            os.write(2, b"two\n")

    thread = threading.Thread(target=work)
    with native_call():
        thread.start()
        assert entered.wait(60)
        os.write(2, b"one\n")
    assert capfd.readouterr().err == ""
    left.set()
    thread.join()
    assert capfd.readouterr().err == "one\ntwo\n"


def test_native_call_fork_in_the_block_gives_the_child_its_standard_error(capfd: Any) -> None:
    """The child writes at once, and leaves the block without a trace; the parent still holds."""
    with native_call():
        process_id = os.fork()
        if process_id == 0:
            code = 1
            try:
                os.write(2, b"child\n")
                with native_call():
                    os.write(2, b"call of the child\n")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(process_id, 0)[1] == 0
        os.write(2, b"parent\n")
        assert capfd.readouterr().err == "child\ncall of the child\n"
    assert capfd.readouterr().err == "parent\n"


PROGRAM = """
import os, sys
from codex_ml.io.native_calls import native_call
kind = sys.argv[1]
if kind == "closed":
    os.close(2)
else:
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    if kind == "broken":
        os.close(reader)
    else:
        os.set_blocking(2, False)
with native_call():
    if kind != "closed":
        os.write(2, b"x" * 1_000_000)
print("done")
"""


@pytest.mark.parametrize("kind", ["closed", "broken", "full"])
def test_native_call_standard_error_that_takes_nothing_is_no_failure(kind: str) -> None:
    """It is closed, its reader is gone, or it is a full pipe that does not wait."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr


def test_panic_as_error_holds_no_output(capfd: Any) -> None:
    """Long calls leave standard error as it is."""
    with panic_as_error():
        os.write(2, b"at once\n")
        assert capfd.readouterr().err == "at once\n"
    with pytest.raises(NativePanicError), panic_as_error():
        _panic()
    capfd.readouterr()
