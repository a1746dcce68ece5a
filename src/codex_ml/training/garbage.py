"""What is there after the first step is left out of the garbage collector's rounds until the run is over."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class FrozenGarbage:
    """Freezes, once, whatever Python has made so far: libraries, the model, the records.

    None of it becomes garbage while a run lasts, and a full round of the collector looks at all of it. What is made
    later is collected as before, so that a cycle in a hook does not grow without end.
    """

    def __init__(self) -> None:
        self._is_frozen = False

    def freeze_once(self) -> None:
        """Collect, and freeze what is left; after the first call nothing happens."""
        if not self._is_frozen:
            gc.collect()
            gc.freeze()
            self._is_frozen = True

    def thaw(self) -> None:
        """Let the collector see everything again."""
        if self._is_frozen:
            gc.unfreeze()
            self._is_frozen = False


@contextmanager
def frozen_garbage() -> Iterator[FrozenGarbage]:
    """Give what freezes, and thaw at the end of the block, however it ends."""
    garbage = FrozenGarbage()
    try:
        yield garbage
    finally:
        garbage.thaw()
