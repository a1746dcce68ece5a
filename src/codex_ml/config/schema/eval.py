"""The `eval` section: what is generated, and how it is scored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import Rule, Section, Violation
from codex_ml.config.schema.data import SplitName

WeightsChoice = Literal["auto", "averaged", "last"]
DEFAULT_METRICS = ("bleu", "rouge_l", "f1", "exact_match", "loss", "perplexity")


def _metrics_differ(evaluation: EvalSection) -> Violation | None:
    twice = sorted({name for name in evaluation.metrics if evaluation.metrics.count(name) > 1})
    if not twice:
        return None
    return Violation("metrics", f"named twice: {', '.join(twice)}", "name every metric once")


class EvalSection(Section):
    """Split, metrics and limits of an evaluation."""

    section_key: ClassVar[str] = "eval"
    rules: ClassVar[tuple[Rule, ...]] = (Rule("eval-metrics-differ", ("metrics",), _metrics_differ),)

    split: SplitName = Field(default="test", description="Records to evaluate on: train, valid or test.")
    # The names are checked against the metric registry when an evaluation starts: the schema may not import it.
    metrics: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, strict=False)] = Field(
        default=DEFAULT_METRICS, description="Names of the metrics to compute."
    )
    weights: WeightsChoice = Field(
        default="auto",
        description="Weights of a checkpoint: their average (averaged), those of its last step (last), or the average "
        "where there is one (auto).",
    )
    batch_size: int = Field(default=32, ge=1, description="Records in one forward pass; changes no result.")
    max_new_tokens: int = Field(default=64, ge=1, description="Longest generated answer in tokens.")
    max_records: int | None = Field(default=None, ge=1, description="Evaluate the first so many records; null: all.")
    bleu_tokenize: Literal["13a", "char", "intl", "none", "zh"] = Field(
        default="13a", description="Tokenizer of sacrebleu."
    )
