"""Work on bytes in a thread of its own: in order, bounded, and no failure is lost."""

from __future__ import annotations

import threading

import pytest

from codex_ml.data.readers.files import Background

LARGE = 1 << 17


def test_background_calls_of_all_sizes_keep_their_order() -> None:
    """Small pieces never overtake large ones that wait."""
    seen: list[bytes] = []
    pieces = [bytes([number]) * (LARGE if number % 3 else 10) for number in range(60)]
    with Background() as background:
        for piece in pieces:
            background.call(seen.append, piece)
        background.finish()
        assert seen == pieces


def test_background_slow_function_holds_the_caller_back() -> None:
    """No more than a few pieces wait, so memory is bounded."""
    gate = threading.Event()
    started: list[int] = []
    with Background() as background:

        def fill() -> None:
            for number in range(20):
                started.append(number)
                background.call(lambda _data: gate.wait(), bytes(LARGE))

        filler = threading.Thread(target=fill)
        filler.start()
        filler.join(timeout=0.5)
        assert filler.is_alive()
        assert len(started) < 10
        gate.set()
        filler.join()
        background.finish()
    assert len(started) == 20


@pytest.mark.parametrize("size", [10, LARGE])
def test_background_function_that_fails_is_heard(size: int) -> None:
    """What a function raises reaches the caller at the latest when it finishes."""

    def fail(_data: bytes) -> None:
        raise OSError(28, "no space left on device")

    def work(background: Background) -> None:
        background.call(fail, bytes(size))
        background.finish()

    with Background() as background, pytest.raises(OSError, match="no space left"):
        work(background)
