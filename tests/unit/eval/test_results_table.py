"""The table of several evaluations as text."""

from __future__ import annotations

from codex_ml.eval.metrics import MetricResult, Scale
from codex_ml.eval.results import render_table


def result(name: str, value: float, scale: Scale, higher_is_better: bool = True) -> MetricResult:
    """Return a result without settings."""
    return MetricResult(name, value, scale, higher_is_better, name)


def test_render_table_base_and_tuned_are_aligned_side_by_side() -> None:
    """Columns line up, BLEU has two decimals and the rest four, and the direction of the loss is said."""
    base = {"bleu": result("bleu", 3.14159, "0-100"), "loss": result("loss", 5.5, "nats", higher_is_better=False)}
    tuned = {"bleu": result("bleu", 100.0, "0-100"), "loss": result("loss", 0.12345, "nats", higher_is_better=False)}
    assert render_table([("base", base), ("tuned", tuned)]).split("\n") == [
        "| metric                 |   base |  tuned |",
        "| ---------------------- | -----: | -----: |",
        "| bleu                   |   3.14 | 100.00 |",
        "| loss (lower is better) | 5.5000 | 0.1235 |",
    ]


def test_render_table_metric_that_one_model_lacks_is_a_dash() -> None:
    """A missing number is shown as missing, and a bar in a name does not break the table."""
    table = render_table([("a|b", {}), ("c", {"f1": result("f1", 0.5, "0-1")})])
    assert table.split("\n")[0] == "| metric | a\\|b |      c |"
    assert table.split("\n")[-1] == "| f1     |    - | 0.5000 |"
