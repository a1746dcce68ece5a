"""Work on untrusted input in a forked process: it can be stopped at any instant, whatever it hangs in.

A helper is forked once, before the program starts threads. It does no work: it forks a worker when it is asked for one,
so that a worker that was killed is replaced within milliseconds, with all that was imported and loaded before the first
fork, which all of them share in memory.
"""

from __future__ import annotations

import contextlib
import ctypes  # allowed: no-ctypes, prctl(2) ends a child with its parent
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from codex_ml.io.limits import address_space_bytes, lower_limit

_LENGTH = struct.Struct("<Q")
_STATUS = struct.Struct("<i")
_NEW_WORKER, _READY, _HOW_IT_ENDED = b"n", b"r", b"h"
# What an answer of the worker begins with: an answer, the name of an exception, no memory.
_ANSWER, _FAULT, _NO_MEMORY = b"a", b"f", b"m"
# Libraries in C++ and Rust abort where memory is refused to them.
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGABRT)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LARGEST_MESSAGE = 1 << 30
_START_SECONDS = 60.0


class WorkerError(Exception):
    """A worker gave no answer; it was stopped, and the next question goes to another."""


class WorkerLimitError(WorkerError):
    """A worker took more processor time, memory or wall-clock time than it was given, and was stopped."""


class StoppableProcess:
    """Answers questions in a process that is killed when it takes too long.

    Call `start` before the program starts threads, and `close` at its end; without `close` the processes end when the
    program does.

    Parameters
    ----------
    answer : callable
        Called in the worker with each question; gives the answer. What it raises ends the worker; its type is told.
    cpu_seconds, cpu_seconds_per_mebibyte : int
        Processor time of one question (``RLIMIT_CPU``), and what is added for its length.
    wall_seconds : float
        Time until an answer is given up; for a machine that is busy, several times the processor time.
    extra_bytes : int
        Memory that a worker may ask for beyond what it starts with (``RLIMIT_AS``).
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        *,
        cpu_seconds: int,
        wall_seconds: float,
        extra_bytes: int,
        cpu_seconds_per_mebibyte: int = 0,
    ) -> None:
        self._answer, self._cpu_seconds, self._wall_seconds = answer, cpu_seconds, wall_seconds
        self._extra_bytes, self._cpu_seconds_per_mebibyte = extra_bytes, cpu_seconds_per_mebibyte
        self._helper: socket.socket | None = None
        self._worker: socket.socket | None = None
        self._process_id = 0
        self._closed = False
        self._starting = threading.Lock()

    def start(self) -> None:
        """Fork the helper and its first worker.

        Raises
        ------
        WorkerError
            If they cannot be started, or `close` was called.
        """
        self._worker = self._start_worker()

    def close(self) -> None:
        """End both for good; a question that is being answered ends with `WorkerError`."""
        self._closed = True
        # Another thread may wait for an answer of either: closing alone would not wake it.
        for channel in (self._worker, self._helper):
            if channel is not None:
                with contextlib.suppress(OSError):
                    channel.shutdown(socket.SHUT_RDWR)
        with self._starting:
            self._stop_helper()

    def ask(self, question: bytes) -> bytes:
        """Return the answer to a question; called by one thread at a time.

        Raises
        ------
        WorkerLimitError
            If the worker went beyond its bounds.
        WorkerError
            If it ended for another reason: a fault of the code (with the type of the exception), a crash, `close`.
        """
        worker = self._worker
        if worker is None or self._closed:
            worker = self._worker = self._start_worker()
        deadline = time.monotonic() + self._wall_seconds
        try:
            _send(worker, question, deadline)
            answer = _receive(worker, deadline)
        except TimeoutError:
            self._drop_worker()
            raise WorkerLimitError(f"it took more than {_counted(self._wall_seconds)}") from None
        except (OSError, EOFError):
            self._drop_worker()
            raise self._ended(question) from None
        kind, content = answer[:1], answer[1:]
        if kind == _ANSWER:
            return content
        self._drop_worker()
        if kind == _NO_MEMORY:
            raise WorkerLimitError(self._beyond_memory())
        raise WorkerError(f"the process for untrusted input failed: {content.decode('ascii', 'replace')}")

    def _ended(self, question: bytes) -> WorkerError:
        """Return the error for a worker that is gone, by how it ended."""
        status = None if self._closed else self._status()
        if status is None or not os.WIFSIGNALED(status):
            why = "it was closed" if self._closed else "it ended without an answer"
            return WorkerError(f"the process for untrusted input gave no answer: {why}")
        number = os.WTERMSIG(status)
        if number not in _LIMIT_SIGNALS:
            return WorkerError(f"the process for untrusted input was ended by signal {number}")
        if number == signal.SIGXCPU:
            return WorkerLimitError(f"it took more than {_counted(self._seconds_for(question))} of processor time")
        return WorkerLimitError(f"{self._beyond_memory()}, or a native library ended the process")

    def _beyond_memory(self) -> str:
        return f"it needed more than {self._extra_bytes >> 20} MiB of memory"

    def _status(self) -> int | None:
        """Return how the last worker ended, as the helper knows it."""
        helper = self._helper
        if helper is None:
            return None
        try:
            helper.settimeout(_START_SECONDS)
            helper.sendall(_HOW_IT_ENDED)
            (status,) = _STATUS.unpack(_exactly(helper, _STATUS.size, time.monotonic() + _START_SECONDS))
        except (OSError, EOFError):
            return None
        return int(status)

    def _seconds_for(self, question: bytes) -> int:
        return self._cpu_seconds + self._cpu_seconds_per_mebibyte * len(question) // (1 << 20)

    def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _start_worker(self) -> socket.socket:
        """Have the helper kill its worker, if it has one, and fork another."""
        with self._starting:
            return self._start_worker_alone()

    def _start_worker_alone(self) -> socket.socket:
        for helper_is_new in (False, True):
            if self._closed:
                raise WorkerError("the process for untrusted input was closed")
            ours, theirs = socket.socketpair()
            try:
                if self._helper is None:
                    self._start_helper()
                assert self._helper is not None
                self._helper.settimeout(_START_SECONDS)
                socket.send_fds(self._helper, [_NEW_WORKER], [theirs.fileno()])
                if self._helper.recv(1) == _READY:
                    return ours
            except OSError:
                pass
            finally:
                theirs.close()
            ours.close()
            # Something outside ended the helper. It is forked again, now beside threads, which a fork can survive: what
            # does not is stopped by the bounds.
            self._stop_helper()
            if helper_is_new:
                break
        raise WorkerError("the process for untrusted input cannot be started")

    def _start_helper(self) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        process_id = os.fork()
        if process_id == 0:
            # Nothing of the program's own end may run in the child: no handlers, no buffers written twice.
            with contextlib.suppress(BaseException):
                ours.close()
                _be_a_child(parent, theirs.fileno())
                self._help(theirs)
            os._exit(0)
        theirs.close()
        self._helper, self._process_id = ours, process_id

    def _stop_helper(self) -> None:
        self._drop_worker()
        if self._helper is not None:
            self._helper.close()
            self._helper = None
        if self._process_id:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._process_id, signal.SIGKILL)
                os.waitpid(self._process_id, 0)
            self._process_id = 0

    def _help(self, asked: socket.socket) -> None:
        """Fork a worker whenever it is asked for, until the program ends or closes the connection."""
        worker_id = 0
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, 1, 1)
            if message == _HOW_IT_ENDED:
                # Its connection has ended, so it ends; it is not killed, or its own end would not be known.
                status = os.waitpid(worker_id, 0)[1] if worker_id else 0
                worker_id = 0
                asked.sendall(_STATUS.pack(status))
                continue
            if worker_id:
                os.kill(worker_id, signal.SIGKILL)
                os.waitpid(worker_id, 0)
            if not message:
                return
            channel = socket.socket(fileno=descriptors[0])
            parent = os.getpid()
            worker_id = os.fork()
            if worker_id == 0:
                with contextlib.suppress(BaseException):
                    asked.close()
                    _be_a_child(parent, channel.fileno())
                    self._work(channel)
                os._exit(0)
            channel.close()
            asked.sendall(_READY)

    def _work(self, channel: socket.socket) -> None:
        lower_limit(resource.RLIMIT_AS, address_space_bytes() + self._extra_bytes)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        while True:
            question = _receive(channel, None)
            used = resource.getrusage(resource.RUSAGE_SELF)
            # Whole seconds, rounded up; at the soft limit the kernel ends the process (SIGXCPU).
            soft = int(used.ru_utime + used.ru_stime) + 1 + self._seconds_for(question)
            resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
            try:
                answer = _ANSWER + self._answer(question)
            except MemoryError:
                answer = _NO_MEMORY
            except BaseException as error:  # noqa: BLE001 - a panic is no Exception
                # The type only: a message may hold what was asked.
                answer = _FAULT + type(error).__name__.encode("ascii", "replace")
            _send(channel, answer, None)
            if answer[:1] != _ANSWER:
                return


def _be_a_child(parent: int, channel: int) -> None:
    """Take no part in what concerns the program: its signals, files and connections; end when the parent ends.

    Parameters
    ----------
    parent : int
        The process that forked this one.
    channel : int
        The one descriptor that is kept.
    """
    signal.set_wakeup_fd(-1)
    for number in _STOP_SIGNALS:
        # The program decides: what it has taken is still answered after the first signal to the whole group.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_RDWR)
    # Not closed: objects that this process inherited would close the numbers again, when others have them.
    for descriptor in {0, 1, 2, *(int(entry.name) for entry in Path("/proc/self/fd").iterdir())} - {channel, nothing}:
        os.dup2(nothing, descriptor, inheritable=descriptor <= 2)


def _counted(seconds: float) -> str:
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"


def _send(channel: socket.socket, message: bytes, deadline: float | None) -> None:
    _bound(channel, deadline)
    channel.sendall(_LENGTH.pack(len(message)) + message)


def _receive(channel: socket.socket, deadline: float | None) -> bytes:
    """Return the next message.

    Raises
    ------
    EOFError
        If the other side has ended, or sends nonsense.
    TimeoutError
        If it takes longer than the deadline.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, deadline))
    if length > _LARGEST_MESSAGE:
        raise EOFError
    return _exactly(channel, length, deadline)


def _exactly(channel: socket.socket, count: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        _bound(channel, deadline)
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _bound(channel: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        channel.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    channel.settimeout(left)
