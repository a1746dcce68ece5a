"""The table of an evaluation: one line a metric, one column a model, aligned as plain text and valid Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codex_ml.eval.metrics import MetricResult

_DECIMALS = {"0-100": 2, "0-1": 4, "nats": 4, "ratio": 4}
_ABSENT = "-"


def render_table(columns: Sequence[tuple[str, Mapping[str, MetricResult]]]) -> str:
    """Return the metrics of several evaluations side by side.

    Parameters
    ----------
    columns : sequence of (name, results by metric name)
        The first is what the others are compared with by eye, usually ``base``. Lines come in the order in which the
        metrics first appear; a model that lacks one shows a dash.

    Returns
    -------
    str
        Without a final newline. Metrics that are better when lower say so beside their name.
    """
    metric_names = list(dict.fromkeys(name for _, results in columns for name in results))
    rows = [["metric", *(name.replace("|", "\\|") for name, _ in columns)]]
    for metric_name in metric_names:
        found = [results.get(metric_name) for _, results in columns]
        known = next(result for result in found if result is not None)
        label = metric_name if known.higher_is_better else f"{metric_name} (lower is better)"
        rows.append([label, *(_number(result) for result in found)])
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(columns) + 1)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (rows[0], rule, *rows[1:]))


def _number(result: MetricResult | None) -> str:
    return _ABSENT if result is None else f"{result.value:.{_DECIMALS[result.scale]}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Join cells: the first to the left, numbers to the right."""
    padded = [
        cells[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
    ]
    return f"| {' | '.join(padded)} |"
