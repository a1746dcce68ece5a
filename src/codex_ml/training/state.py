"""What a run has reached: the part of a checkpoint that is neither weight nor optimizer tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from codex_ml.errors import CheckpointError


@dataclass
class TrainerState:
    """Counters of one run; everything here is a function of the steps taken, never of the clock.

    Parameters
    ----------
    step : int
        Optimizer steps taken.
    trained_tokens, masked_tokens, padding_tokens : int
        Positions computed so far, by what they were (DESIGN.md, promise 3).
    interval_loss_sum, interval_tokens : float, int
        Loss and supervised tokens since the last log line; kept so that a resumed run logs the same means.
    best_metric, best_step : float, int
        Lowest validation loss so far and its step; None before the first evaluation.
    evaluations_without_improvement : int
        For early stopping.
    validation_losses : dict
        Validation loss by step; ranks the checkpoints for retention.
    stop_reason : str
        Why training ended before its last step; None otherwise.
    loss_scale, steps_at_loss_scale, overflows : float, int, int
        Of float16: the scale in use (None where there is none), steps since it last changed, windows that were computed
        again because their gradients overflowed.
    owed_metrics : dict
        Metrics of the current step where the run was asked to stop during its validation; a resume begins with that.
        None otherwise.
    """

    step: int = 0
    trained_tokens: int = 0
    masked_tokens: int = 0
    padding_tokens: int = 0
    interval_loss_sum: float = 0.0
    interval_tokens: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0
    validation_losses: dict[int, float] = field(default_factory=dict)
    stop_reason: str | None = None
    loss_scale: float | None = None
    steps_at_loss_scale: int = 0
    overflows: int = 0
    owed_metrics: dict[str, float] | None = None

    def note_validation(self, loss: float, min_delta: float) -> bool:
        """Take in a validation loss of the current step; tell whether it is the best so far.

        An improvement smaller than ``min_delta`` is still the best, but counts against patience.
        """
        self.validation_losses[self.step] = loss
        improved_enough = self.best_metric is None or loss < self.best_metric - min_delta
        self.evaluations_without_improvement = 0 if improved_enough else self.evaluations_without_improvement + 1
        if self.best_metric is None or loss < self.best_metric:
            self.best_metric, self.best_step = loss, self.step
            return True
        return False

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        values = asdict(self)
        values["validation_losses"] = {str(step): loss for step, loss in self.validation_losses.items()}
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainerState:
        """Return the state that `to_json` wrote.

        Raises
        ------
        CheckpointError
            If fields are missing or unknown.
        """
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            raise CheckpointError(
                "the trainer state of the checkpoint has other fields than this codex-ml knows",
                why=f"differing: {', '.join(sorted(set(values) ^ known))}",
                fix="resume with the codex-ml version that wrote it",
            )
        losses = {int(step): float(loss) for step, loss in values["validation_losses"].items()}
        return cls(**{**values, "validation_losses": losses})
