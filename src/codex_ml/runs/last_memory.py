"""What a run last wrote of its memory: the only trace that a kill by the kernel leaves, which nobody can catch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.io.untrusted import UntrustedFileError, open_regular, parse_json

_TAIL_BYTES = 16384
# With less than this share of its own size left, a process is about to be stopped by the kernel.
_SCARCE_SHARE = 0.1
_GIB = 1 << 30


@dataclass(frozen=True)
class LastMemory:
    """Memory of a process at its last line about it.

    Attributes
    ----------
    step : int
        Optimizer step of that line.
    resident_bytes : int
        What the process held.
    available_bytes : int, optional
        What it might still have taken, by the machine and by the limits of its container; None where not logged.
    """

    step: int
    resident_bytes: int
    available_bytes: int | None

    @property
    def was_scarce(self) -> bool:
        """Tell whether so little was left that the kernel has probably ended the process."""
        return self.available_bytes is not None and self.available_bytes < _SCARCE_SHARE * self.resident_bytes

    def text(self) -> str:
        """Return it for people, with what to do where memory was scarce."""
        said = f"at step {self.step} it held {self.resident_bytes / _GIB:.2f} GiB of memory"
        if self.available_bytes is None:
            return said
        said += f", {self.available_bytes / _GIB:.2f} GiB were left"
        if not self.was_scarce:
            return said
        return (
            f"{said}: the kernel's out-of-memory killer has probably ended it; a lower training.micro_batch_size (with "
            "more training.gradient_accumulation_steps) or data.max_length_tokens needs less"
        )


def read_last_memory(metrics: Path) -> LastMemory | None:
    """Return what the newest lines of a run's metrics say of memory; None where they say nothing."""
    values: dict[str, tuple[int, int]] = {}
    for line in _newest_lines(metrics):
        name, value, step = line.get("name"), line.get("value"), line.get("step")
        if isinstance(name, str) and isinstance(value, int | float) and isinstance(step, int):
            values.setdefault(name, (step, int(value)))
    # The same number under two names: of the training line, and of the system's where psutil could be asked.
    resident = max((values[name] for name in ("memory_bytes", "resident_bytes") if name in values), default=None)
    if resident is None:
        return None
    available = values.get("available_bytes")
    return LastMemory(*resident, available[1] if available is not None else None)


def _newest_lines(metrics: Path) -> Iterator[dict[str, Any]]:
    """Yield whole lines of the current file's end, newest first; what is torn or no object is passed over."""
    try:
        with open_regular(metrics, follow_links=False) as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _TAIL_BYTES))
            pieces = handle.read().split(b"\n")
    except (OSError, UntrustedFileError):
        return
    for piece in reversed(pieces):
        try:
            line = parse_json(piece)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
