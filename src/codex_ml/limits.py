"""Bounds on the time and memory of work that somebody else's text decides: chat templates, regular expressions."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Fires again: an exception that is raised inside a destructor is swallowed by Python.
_REPEAT_SECONDS = 0.05


class LimitExceededError(Exception):
    """Work took more processor time than it was given."""


@contextmanager
def limited(cpu_seconds: float, extra_bytes: int | None = None) -> Iterator[None]:
    """Bound the processor time, and the further memory, of a ``with`` block.

    The time is that of the process (``ITIMER_VIRTUAL``), so a machine that is busy with something else changes nothing.
    It is enforced in the main thread only, where Python handles signals; a single operation of the interpreter is not
    broken off in its middle, but regular expressions look for signals while they backtrack.

    Parameters
    ----------
    cpu_seconds : float
        More raises `LimitExceededError`.
    extra_bytes : int, optional
        Address space that may be asked for beyond what the process has; more raises `MemoryError`.

    Raises
    ------
    LimitExceededError
        In the block, when its time is over.
    """
    with _memory(extra_bytes), _time(cpu_seconds):
        yield


@contextmanager
def _time(cpu_seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise LimitExceededError(f"more than {cpu_seconds:g} seconds of processor time")

    handler = signal.signal(signal.SIGVTALRM, stop)
    timer = signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds, _REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *timer)
        signal.signal(signal.SIGVTALRM, handler)


@contextmanager
def _memory(extra_bytes: int | None) -> Iterator[None]:
    if extra_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space_bytes() + extra_bytes
    bound = wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()
