"""Calls into native libraries: their messages on standard error are held back, and dropped when they panic."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from codex_ml.errors import is_panic
from codex_ml.io.stopping import STOP, StopRequest

_STANDARD_ERROR = 2
_REPLAYED_BYTES = 1 << 20


class NativePanicError(Exception):
    """A library written in Rust panicked; its own message may quote what it was given, and is not kept."""


class HeldOutput:
    """Standard error, pointed at a file in memory for as long as any thread is inside a native call.

    Rust prints the message of a panic to file descriptor 2 before Python sees the exception. The calls that hold it are
    short (one text is encoded or decoded), because a process that another thread starts meanwhile inherits the file in
    memory. The file is kept, so that what such a process writes later appears at the end of a later call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._panicked = False
        self._kept: int | None = None
        self._memory: int | None = None
        # A forked child would block on a lock that another thread held.
        os.register_at_fork(after_in_child=self._reset)

    def enter(self) -> None:
        """Hold what is written from now on; where that is impossible, leave standard error as it is."""
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._panicked = False
            # It may be closed, or no descriptor may be left.
            with contextlib.suppress(OSError):
                if self._memory is None:
                    self._memory = os.memfd_create("codex-ml standard error", os.MFD_CLOEXEC)
                self._kept = os.dup(_STANDARD_ERROR)
                os.dup2(self._memory, _STANDARD_ERROR)

    def leave(self, panicked: bool) -> None:
        """Write what was held when the last thread leaves, or drop it after a panic; nothing where nobody entered."""
        with self._lock:
            if not self._inside:
                return  # in a child that was forked within the block
            self._inside -= 1
            self._panicked |= panicked
            if self._inside or self._kept is None or self._memory is None:
                return
            self._put_back()
            # Written through a descriptor that shares this position, so it tells how much there is.
            length = os.lseek(self._memory, 0, os.SEEK_CUR)
            if not length:
                return
            said = b"" if self._panicked else os.pread(self._memory, min(length, _REPLAYED_BYTES), 0)
            os.lseek(self._memory, 0, os.SEEK_SET)
            os.ftruncate(self._memory, 0)
        # Nobody may read it any more, or it may be a full pipe that does not wait: no reason for the call to fail.
        with contextlib.suppress(OSError):
            while said:
                said = said[os.write(_STANDARD_ERROR, said) :]

    def _put_back(self) -> None:
        if self._kept is not None:
            os.dup2(self._kept, _STANDARD_ERROR)
            os.close(self._kept)
            self._kept = None

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._put_back()
        if self._memory is not None:
            os.close(self._memory)
        self._inside, self._memory = 0, None


_HELD = HeldOutput()


@contextmanager
def panic_as_error() -> Iterator[None]:
    """Turn a panic in a ``with`` block into an `Exception`; its message appears on standard error.

    For long calls (loading, training a tokenizer), during which standard error must not be held. No panic quotes a text
    there: files were tried in another process, and what trains is our own pre-tokenizer on texts within bounds.

    Raises
    ------
    NativePanicError
        If a library written in Rust panicked in the block.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        # Without its cause: the text of a panic may quote what the library was given.
        raise NativePanicError("a native library panicked") from None


@contextmanager
def native_call(stop: StopRequest = STOP) -> Iterator[None]:
    """Turn a panic in a ``with`` block into an `Exception`, and keep its message away from the terminal.

    Everything else that is written to standard error meanwhile is written when the block ends. The block must be short:
    a signal that asks to stop is deferred to its end, so that standard error is not lost.

    Parameters
    ----------
    stop : StopRequest
        Defers the signals.

    Raises
    ------
    NativePanicError
        If a library written in Rust panicked in the block.
    StopSignal
        If the process was asked to stop in the block.
    """
    with stop.deferred():
        panicked = False
        _HELD.enter()
        try:
            with panic_as_error():
                yield
        except NativePanicError:
            panicked = True
            raise
        finally:
            _HELD.leave(panicked)
