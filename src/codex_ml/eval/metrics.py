"""The metrics an evaluation can be asked for, by name, and what each of them returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from codex_ml.errors import NonFiniteError, UserError
from codex_ml.registry import METRICS

Scale = Literal["0-100", "0-1", "nats", "ratio"]


@dataclass(frozen=True)
class MetricResult:
    """One number with everything needed to get it again.

    Attributes
    ----------
    name : str
        Name in the registry.
    value : float
        Over the whole set, on ``scale``.
    scale : str
        ``"0-100"``, ``"0-1"``, ``"nats"`` (a token) or ``"ratio"``.
    higher_is_better : bool
        Direction of the metric.
    signature : str
        Settings and library version in one line, to be quoted together with the number.
    settings : mapping
        The same settings, for machines.
    undefined : int
        Records for which the metric could not say anything whatever the model had answered; they count with 0.
    """

    name: str
    value: float
    scale: Scale
    higher_is_better: bool
    signature: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    undefined: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise NonFiniteError(
                f"metric {self.name} is {self.value}",
                why="a number that is not finite can be neither compared nor written",
                fix="look at the loss of the evaluated checkpoint",
                code="EVAL_METRIC_NOT_FINITE",
            )


# Called with predictions, one list of references for each of them, and settings by keyword.
TextMetric = Callable[..., MetricResult]


@dataclass(frozen=True)
class LossTotals:
    """Sums over every supervised token of a set, from `codex_ml.modeling.forward.supervised_loss`.

    Attributes
    ----------
    loss_sum : float
        In nats.
    correct : int
        Supervised tokens that were the model's first choice.
    supervised_tokens : int
        At least 1.
    """

    loss_sum: float
    correct: int
    supervised_tokens: int


@dataclass(frozen=True)
class Metric:
    """An entry of the registry: exactly one of ``score_text`` and ``score_totals`` is set.

    Attributes
    ----------
    score_text : callable, optional
        A text metric; it needs generation and references.
    score_totals : callable, optional
        A model metric; it needs the supervised loss only, so it works on text streams too.
    """

    name: str
    score_text: TextMetric | None = None
    score_totals: Callable[[LossTotals], MetricResult] | None = None

    def __post_init__(self) -> None:
        if (self.score_text is None) == (self.score_totals is None):
            raise ValueError(f"metric {self.name!r} must score either text or totals")

    @property
    def needs_text(self) -> bool:
        """Whether the metric needs generated text."""
        return self.score_text is not None


def loss(totals: LossTotals) -> MetricResult:
    """Return the mean cross entropy in nats per supervised token."""
    value = totals.loss_sum / totals.supervised_tokens
    return MetricResult("loss", value, "nats", False, "loss|mean:supervised_tokens|log:natural|softmax:float32")


def perplexity(totals: LossTotals) -> MetricResult:
    """Return ``exp(loss)``: per token of this tokenizer, so comparable only between models that share it."""
    mean = totals.loss_sum / totals.supervised_tokens
    value = math.exp(mean) if mean < 700 else math.inf  # beyond that exp overflows; the result then says so
    return MetricResult("perplexity", value, "ratio", False, "perplexity|exp(loss)|mean:supervised_tokens")


def token_accuracy(totals: LossTotals) -> MetricResult:
    """Return the share of supervised tokens that were the model's first choice given the true tokens before them."""
    value = totals.correct / totals.supervised_tokens
    return MetricResult("token_accuracy", value, "0-1", True, "token_accuracy|argmax|teacher-forced")


LOSS = Metric("loss", score_totals=loss)
PERPLEXITY = Metric("perplexity", score_totals=perplexity)
TOKEN_ACCURACY = Metric("token_accuracy", score_totals=token_accuracy)


def chosen_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of these names, in this order.

    Raises
    ------
    UserError
        If a name is unknown or given twice, or no name is given.
    """
    if not names:
        raise UserError(
            "eval.metrics is empty", fix=f"choose from: {', '.join(METRICS.names())}", code="EVAL_NO_METRICS"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(
            f"eval.metrics names {', '.join(repeated)} more than once",
            fix="name each metric once",
            code="EVAL_DUPLICATE_METRIC",
        )
    return {name: METRICS.get(name) for name in names}


def require_pairs(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise a `UserError` unless there is at least one prediction, and for each at least one reference."""
    if len(predictions) != len(references):
        raise UserError(
            f"{name}: {len(predictions)} predictions for {len(references)} records with references",
            why="each prediction is scored against the references of its own record",
            code="EVAL_PREDICTION_COUNT_MISMATCH",
        )
    if not predictions:
        raise UserError(
            f"{name}: the evaluation set is empty",
            why="a metric over no records is not a number",
            fix="evaluate a split that holds records",
            code="EVAL_SET_EMPTY",
        )
    without = [index for index, texts in enumerate(references) if not texts]
    if without:
        raise UserError(
            f"{name}: {len(without)} records have no reference, first number {without[0] + 1}",
            code="EVAL_REFERENCE_MISSING",
        )
