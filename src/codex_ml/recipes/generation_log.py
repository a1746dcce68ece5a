"""The audit of texts generated outside a run: a log that is there only when something was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.monitoring.codex_logging import NdjsonWriter
from codex_ml.storage import Storage

DIRECTORY = "generation"


class GenerationLog:
    """Events of one process, in a file of its own below where the runs lie; use it as a context manager.

    Parameters
    ----------
    output_dir : Path
        Where the runs lie.
    max_bytes : int
        Size at which the file is rotated.
    redact : callable
        Gets an event and returns what may be written.
    clock : callable
        Gives the time.
    storage : Storage
        The disk.
    """

    def __init__(
        self,
        output_dir: Path,
        max_bytes: int,
        redact: Callable[[Any], Any],
        clock: Callable[[], datetime],
        storage: Storage,
    ) -> None:
        self._directory = output_dir / DIRECTORY
        self._max_bytes, self._redact, self._clock, self._storage = max_bytes, redact, clock, storage
        self._writer: NdjsonWriter | None = None

    def __enter__(self) -> GenerationLog:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    @property
    def path(self) -> Path | None:
        """The file; None as long as there was nothing to write."""
        return None if self._writer is None else self._writer.path

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event."""
        if self._writer is None:
            self._storage.make_directory(self._directory)
            name = f"events-{self._clock():%Y%m%dT%H%M%SZ}-{os.getpid()}.ndjson"
            self._writer = NdjsonWriter(
                self._directory / name,
                self._max_bytes,
                redact=self._redact,
                clock=self._clock,
                storage=self._storage,
            )
        self._writer.write(event)
