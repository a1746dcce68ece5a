"""The garbage collector leaves alone what a run keeps, and sees everything again afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from codex_ml.training.hooks import frozen_garbage


class Cycle:
    """Only the collector can let it go."""

    def __init__(self) -> None:
        self.itself = self


def test_frozen_garbage_is_frozen_once_and_thawed_afterwards() -> None:
    """Nothing before the first step; a second call takes nothing more; then the collector has all of it again."""
    with frozen_garbage() as garbage:
        assert gc.get_freeze_count() == 0
        garbage.freeze_once()
        frozen = gc.get_freeze_count()
        kept = [Cycle() for _ in range(100)]
        garbage.freeze_once()
        assert 0 < gc.get_freeze_count() < frozen + len(kept)
    assert gc.get_freeze_count() == 0


def test_frozen_garbage_is_thawed_after_an_error() -> None:
    """Whatever ended the run."""
    with pytest.raises(RuntimeError, match="ended"):
        _freeze_and_fail()
    assert gc.get_freeze_count() == 0


def _freeze_and_fail() -> None:
    with frozen_garbage() as garbage:
        garbage.freeze_once()
        raise RuntimeError("ended")


def test_frozen_garbage_of_later_steps_is_still_collected() -> None:
    """A cycle that a hook leaves behind goes away."""
    with frozen_garbage() as garbage:
        garbage.freeze_once()
        gone = weakref.ref(Cycle())
        gc.collect()
        assert gone() is None
