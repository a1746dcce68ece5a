"""Results of an evaluation: files and tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.eval.metrics import MetricResult
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.monitoring.codex_logging import DEFAULT_MAX_BYTES, NdjsonWriter, ndjson_files

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


RESULTS_SCHEMA_VERSION = 1
_CSV_COLUMNS = ("metric", "value", "scale", "higher_is_better", "undefined", "signature")


@dataclass(frozen=True)
class Prediction:
    """What the model said for one record; prediction and reference as they were scored, so after the filters."""

    record_id: str
    prediction: str
    reference: str
    finish_reason: str


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers of one model on one split.

    Attributes
    ----------
    metrics : mapping
        Results by name, in the order they were asked for.
    records_scored : int
        Every record of the set, each once.
    supervised_tokens : int
        Tokens that loss, perplexity and token_accuracy are means over.
    generated_tokens : int
        Tokens of all predictions; 0 when no text metric was asked for.
    predictions : tuple of Prediction
        In the order of the records; empty when no text metric was asked for.
    redacted_predictions, redacted_references, redacted_prompts : int
        How many the safety policy changed or took away before they were scored or answered, when the records were read
        or later; counted where text is generated.
    finish_reasons : mapping
        How many predictions ended by each reason.
    settings : mapping
        What was asked for, enough to do it again.
    """

    metrics: Mapping[str, MetricResult]
    records_scored: int
    supervised_tokens: int
    generated_tokens: int = 0
    predictions: tuple[Prediction, ...] = ()
    redacted_predictions: int = 0
    redacted_references: int = 0
    redacted_prompts: int = 0
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedModel:
    """What was evaluated: the name of the checkpoint, the split, and digests that tell it from any other.

    Attributes
    ----------
    digests : mapping
        Digests by what they are of, such as ``{"base_model": "sha256:…", "adapter": "sha256:…", "data": "sha256:…"}``.
    safety : mapping
        Whether the filters were on, by which policy (name and digest), and the written reason where they were bypassed.
    computed : mapping
        What decides the last bits of the numbers: ``device``, ``dtype`` and ``batch_layout``, as they were chosen.
    """

    checkpoint: str
    split: str
    digests: Mapping[str, str]
    safety: Mapping[str, Any]
    computed: Mapping[str, str]


def write_results(
    directory: Path,
    result: EvaluationResult,
    evaluated: EvaluatedModel,
    *,
    redact: Callable[[Any], Any],
    max_bytes: int = DEFAULT_MAX_BYTES,
    storage: Storage | None = None,
    rejects: bytes = b"",
) -> Path:
    """Write the files of one evaluation, whole or not at all, in place of those of an earlier one.

    Everything is staged beside ``directory`` and renamed at the end, so no reader meets numbers of one evaluation
    beside predictions of another. Without a text metric there is no predictions file.

    Parameters
    ----------
    directory : Path
        ``eval/<checkpoint>`` of the run; its parents are made when absent. What it holds is replaced.
    redact : callable
        Gets every record of the predictions file and returns what may be written.
    max_bytes : int
        Size at which predictions.ndjson is rotated; nothing is deleted.
    storage : Storage, optional
        Writes and renames; a parameter so that tests can pass one that fails.
    rejects : bytes
        Content of ``rejects.ndjson``: the lines of the data that were left out. Without any there is no such file.

    Returns
    -------
    Path
        The results.json.

    Raises
    ------
    OSError
        If something cannot be written; an earlier result is then still there.
    """
    storage = storage if storage is not None else Storage()
    storage.make_directory(directory.parent)
    staged = directory.with_name(f".{directory.name}.partial")
    if staged.exists():  # left by a process that was killed
        storage.remove_tree(staged)
    storage.make_directory(staged)
    try:
        if result.predictions:
            with NdjsonWriter(staged / "predictions.ndjson", max_bytes, redact=redact, storage=storage) as writer:
                for prediction in result.predictions:
                    writer.write(asdict(prediction))
        storage.write_bytes(staged / "metrics.csv", metrics_csv(result).encode("utf-8"))
        if rejects:
            storage.write_bytes(staged / "rejects.ndjson", rejects)
        written = [
            *ndjson_files(staged / "predictions.ndjson"),
            staged / "metrics.csv",
            *staged.glob("rejects.ndjson"),
        ]
        files = {file.name: file_digest(file) for file in written}
        storage.write_json(staged / "results.json", {**results_json(result, evaluated), "files": files})
        _put_in_place(staged, directory, storage)
    finally:
        if staged.exists():
            storage.remove_tree(staged)
    storage.fsync_directory(directory.parent)
    return directory / "results.json"


def _put_in_place(staged: Path, directory: Path, storage: Storage) -> None:
    """Rename the staged directory to its name; the earlier one is set aside first and comes back when that fails."""
    earlier = directory.with_name(f".{directory.name}.earlier")
    if earlier.exists():  # left by a process that was killed between the two renames
        storage.remove_tree(earlier)
    if not directory.exists():
        storage.replace(staged, directory)
        return
    storage.replace(directory, earlier)
    try:
        storage.replace(staged, directory)
    except OSError:
        storage.replace(earlier, directory)
        raise
    storage.remove_tree(earlier)


def results_json(result: EvaluationResult, evaluated: EvaluatedModel) -> dict[str, Any]:
    """Return the content of results.json but for the digests of the files beside it.

    Keys: ``schema_version``, ``checkpoint``, ``split``, ``digests``, ``safety``, ``computed``, ``records_scored``,
    ``supervised_tokens``, ``generated_tokens``, ``redacted_predictions``, ``redacted_references``,
    ``redacted_prompts``, ``finish_reasons``, ``settings`` and ``metrics``, which
    holds for each name its ``value``, ``scale``, ``higher_is_better``, ``signature``, ``settings``
    and ``undefined``.
    """
    return {
        "schema_version": RESULTS_SCHEMA_VERSION,
        "checkpoint": evaluated.checkpoint,
        "split": evaluated.split,
        "digests": dict(evaluated.digests),
        "safety": dict(evaluated.safety),
        "computed": dict(evaluated.computed),
        "records_scored": result.records_scored,
        "supervised_tokens": result.supervised_tokens,
        "generated_tokens": result.generated_tokens,
        "redacted_predictions": result.redacted_predictions,
        "redacted_references": result.redacted_references,
        "redacted_prompts": result.redacted_prompts,
        "finish_reasons": dict(result.finish_reasons),
        "settings": dict(result.settings),
        "metrics": {
            name: {
                "value": metric.value,
                "scale": metric.scale,
                "higher_is_better": metric.higher_is_better,
                "signature": metric.signature,
                "settings": dict(metric.settings),
                "undefined": metric.undefined,
            }
            for name, metric in result.metrics.items()
        },
    }


def metrics_csv(result: EvaluationResult) -> str:
    """Return one line per metric, with the numbers of results.json (shortest form that reads back equal)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_CSV_COLUMNS)
    for name, metric in result.metrics.items():
        direction = "true" if metric.higher_is_better else "false"
        table.writerow([name, repr(metric.value), metric.scale, direction, metric.undefined, metric.signature])
    return text.getvalue()
