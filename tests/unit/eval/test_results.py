"""The files of an evaluation: same numbers in each, redacted, and whole or absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from codex_ml.eval.metrics import MetricResult
from codex_ml.eval.results import EvaluatedModel, EvaluationResult, Prediction, write_results
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.monitoring.codex_logging import no_redaction, read_ndjson

SAFETY = {"enabled": False, "policy": "default", "policy_digest": "sha256:cc", "bypass_reason": "made-up data"}
COMPUTED = {"device": "cpu", "dtype": "float32", "batch_layout": "ragged"}
EVALUATED = EvaluatedModel(
    "step-00000100", "test", {"adapter": "sha256:aa", "base_model": "sha256:bb"}, SAFETY, COMPUTED
)
RESULT = EvaluationResult(
    metrics={
        "bleu": MetricResult("bleu", 100 / 3, "0-100", True, "bleu|order:4", {"tokenize": "13a"}),
        "loss": MetricResult("loss", 0.1 + 0.2, "nats", False, "loss|mean", undefined=2),
    },
    records_scored=2,
    supervised_tokens=7,
    generated_tokens=5,
    predictions=(Prediction("r0", "grün\u2028red", "green", "stop"), Prediction("r1", "", "x", "length")),
    redacted_predictions=1,
    redacted_references=0,
    finish_reasons={"length": 1, "stop": 1},
    settings={"batch_size": 4},
)


class FailingStorage(Storage):
    """Storage on which the rename of one directory name fails."""

    def __init__(self, failing_target: str) -> None:
        self._failing_target = failing_target
        self._failures = 1

    def replace(self, source: Path, target: Path) -> None:
        """Fail once for the target."""
        if target.name == self._failing_target and self._failures:
            self._failures -= 1
            raise OSError("the disk is full")
        super().replace(source, target)


def test_write_results_files_hold_the_same_numbers(tmp_path: Path) -> None:
    """JSON and CSV read back to the very floats, and results.json says what was evaluated and how."""
    path = write_results(tmp_path / "eval" / "step-00000100", RESULT, EVALUATED, redact=no_redaction)
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = list(csv.DictReader((path.parent / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["metric"]: float(row["value"]) for row in rows} == {"bleu": 100 / 3, "loss": 0.1 + 0.2}
    assert {name: entry["value"] for name, entry in content["metrics"].items()} == {"bleu": 100 / 3, "loss": 0.1 + 0.2}
    assert content["metrics"]["loss"] == {
        "value": 0.1 + 0.2,
        "scale": "nats",
        "higher_is_better": False,
        "signature": "loss|mean",
        "settings": {},
        "undefined": 2,
    }
    assert {
        key: content[key] for key in ("schema_version", "checkpoint", "split", "records_scored", "digests", "computed")
    } == {
        "computed": COMPUTED,
        "schema_version": 1,
        "checkpoint": "step-00000100",
        "split": "test",
        "records_scored": 2,
        "digests": {"adapter": "sha256:aa", "base_model": "sha256:bb"},
    }
    assert content["safety"] == SAFETY
    assert (content["redacted_predictions"], content["finish_reasons"]) == (1, {"length": 1, "stop": 1})


def test_write_results_predictions_pass_the_redaction_and_are_digested(tmp_path: Path) -> None:
    """Each prediction is one line, redacted on its way, and results.json holds the digest of the file."""

    def redact(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "prediction": record["prediction"].replace("red", "[X]")}

    path = write_results(tmp_path / "base", RESULT, EVALUATED, redact=redact)
    predictions = path.parent / "predictions.ndjson"
    lines = list(read_ndjson(predictions))
    assert [(line["record_id"], line["prediction"], line["reference"], line["finish_reason"]) for line in lines] == [
        ("r0", "grün\u2028[X]", "green", "stop"),
        ("r1", "", "x", "length"),
    ]
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    assert files == {name: file_digest(path.parent / name) for name in ("predictions.ndjson", "metrics.csv")}


def test_write_results_small_limit_rotates_and_keeps_every_prediction(tmp_path: Path) -> None:
    """Beyond the size a new file begins; none is lost, and each is digested."""
    path = write_results(tmp_path / "base", RESULT, EVALUATED, redact=no_redaction, max_bytes=1)
    assert [line["record_id"] for line in read_ndjson(path.parent / "predictions.ndjson")] == ["r0", "r1"]
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    assert sorted(files) == ["metrics.csv", "predictions.ndjson", "predictions.ndjson.1"]


def test_write_results_second_time_replaces_everything(tmp_path: Path) -> None:
    """Files of an earlier evaluation do not stay beside the new ones."""
    write_results(tmp_path / "base", RESULT, EVALUATED, redact=no_redaction, max_bytes=1)
    shorter = EvaluationResult(metrics={"loss": RESULT.metrics["loss"]}, records_scored=2, supervised_tokens=7)
    write_results(tmp_path / "base", shorter, EVALUATED, redact=no_redaction)
    assert sorted(file.name for file in (tmp_path / "base").iterdir()) == ["metrics.csv", "results.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["base"]


def test_write_results_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    """A staging directory that a kill left behind neither stops nor enters the next evaluation."""
    for name in (".base.partial", ".base.earlier"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.ndjson").write_text("half a li", encoding="utf-8")
    path = write_results(tmp_path / "base", RESULT, EVALUATED, redact=no_redaction)
    assert len(list(read_ndjson(path.parent / "predictions.ndjson"))) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("failing", ["results.json", "base"])
def test_write_results_failure_leaves_the_earlier_result(tmp_path: Path, failing: str) -> None:
    """When the disk fails in the middle, the earlier files are all there and nothing half-written is."""
    before = write_results(tmp_path / "base", RESULT, EVALUATED, redact=no_redaction).read_bytes()
    other = EvaluatedModel("step-00000200", "test", {}, SAFETY, COMPUTED)
    with pytest.raises(OSError, match="disk is full"):
        write_results(tmp_path / "base", RESULT, other, redact=no_redaction, storage=FailingStorage(failing))
    assert (tmp_path / "base" / "results.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["base"]


def test_write_results_redaction_that_fails_writes_nothing(tmp_path: Path) -> None:
    """Without a redaction that works there is no predictions file and no result."""

    def broken(record: Any) -> Any:
        raise ValueError(f"no rule for {len(record)} keys")

    with pytest.raises(ValueError, match="no rule"):
        write_results(tmp_path / "base", RESULT, EVALUATED, redact=broken)
    assert list(tmp_path.iterdir()) == []
