"""Which checkpoint of a run is its best by the validation losses that it wrote down, whatever the pointer says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from codex_ml.runs.layout import TRAINER_STATE_NAME
from codex_ml.untrusted import read_json


def best_by_validation(checkpoints: Sequence[tuple[int, Path]]) -> Path | None:
    """Return the checkpoint of the lowest validation loss, the earlier one among equals.

    Parameters
    ----------
    checkpoints : sequence of tuple
        (step, directory) of each, oldest first. The newest that can be read knows the losses of all before it.

    Returns
    -------
    Path, optional
        None where no state can be read, or it has no loss of a checkpoint that is there.
    """
    for _, newest in reversed(checkpoints):
        losses = _validation_losses(newest / TRAINER_STATE_NAME)
        if losses is not None:
            ranked = [(losses[step], step, directory) for step, directory in checkpoints if step in losses]
            return min(ranked, default=(0.0, 0, None))[2]
    return None


def is_validated(checkpoints: Sequence[tuple[int, Path]]) -> bool:
    """Tell whether `best` names a best: until the first validation it names the newest, for want of a better one.

    Where no state can be read nobody knows, and the pointer is believed.
    """
    for _, newest in reversed(checkpoints):
        try:
            trainer = read_json(newest / TRAINER_STATE_NAME, follow_links=False)["trainer"]
            return bool(trainer.get("validation_losses")) or trainer.get("best_metric") is not None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return True


def _validation_losses(state: Path) -> dict[int, float] | None:
    try:
        losses = read_json(state, follow_links=False)["trainer"]["validation_losses"]
        values = {int(step): float(loss) for step, loss in losses.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return values if all(math.isfinite(loss) for loss in values.values()) else None
