"""Hashing and writing beside the reading: both let other threads run while they work on a large piece of bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

# So much is worth handing to another thread.
_LARGE_BYTES = 1 << 16
_MOST_AHEAD = 4


class Background:
    """Gives pieces of bytes to functions, one after the other in the order of the calls, in a thread of its own.

    A few pieces wait at most, so memory is bounded. What a function raises is raised by a later call or by `finish`.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codex-ml-data")
        self._ahead: deque[Future[object]] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def call(self, function: Callable[[bytes], object], data: bytes) -> None:
        """Have ``function(data)`` called after all that was asked for before."""
        if len(data) < _LARGE_BYTES and not self._ahead:
            function(data)
            return
        while len(self._ahead) >= _MOST_AHEAD:
            self._ahead.popleft().result()
        self._ahead.append(self._executor.submit(function, data))

    def finish(self) -> None:
        """Wait until all is done."""
        while self._ahead:
            self._ahead.popleft().result()
