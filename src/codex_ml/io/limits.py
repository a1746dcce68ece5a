"""Limits on time and memory for work that untrusted text controls: chat templates, regular expressions."""

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
    It is enforced in the main thread only, where Python handles signals; `codex_ml.io.stoppable_process` bounds the
    work of other threads. A single operation of the interpreter is not interrupted, but regular expressions check for
    signals while they backtrack.

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
    before = resource.getrlimit(resource.RLIMIT_AS)
    lower_limit(resource.RLIMIT_AS, address_space_bytes() + extra_bytes)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def lower_limit(limit: int, value: int) -> None:
    """Lower a soft limit of this process (``RLIMIT_AS``, ``RLIMIT_CPU``) to a value; one that is lower stays."""
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value if soft == resource.RLIM_INFINITY else min(soft, value), hard))


def address_space_bytes() -> int:
    """Return the size of this process's address space in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    return pages * resource.getpagesize()
