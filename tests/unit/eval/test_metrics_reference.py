"""Our metrics against the values published by the reference libraries and papers, line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from codex_ml.eval.metrics import MetricResult
from codex_ml.registry import METRICS

pytestmark = pytest.mark.real_data

# The reference file scores SQuAD on 0-100, we on 0-1.
ROUGE_NAMES = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l", "rougeLsum": "rouge_lsum"}


def case_file() -> Path:
    """Return the reference file: named by CODEX_ML_TEST_DATA, or in ``shared/data`` beside the checkout."""
    named = os.environ.get("CODEX_ML_TEST_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[3].parent / "shared" / "data"
    return root / "metrics_cases.jsonl"


def read_cases() -> list[dict[str, Any]]:
    """Return every case, or none where the file is absent."""
    path = case_file()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


CASES = read_cases()


def score(name: str, case: dict[str, Any], **settings: Any) -> MetricResult:
    """Score the case with one of our metrics."""
    metric = METRICS.get(name).score_text
    assert metric is not None
    return metric(case["predictions"], case["references"], **settings)


def test_reference_cases_are_there_or_the_reason_is_said() -> None:
    """Without the file nothing is compared, which the report says; with it there are cases of every metric."""
    if not CASES:
        pytest.skip(f"no {case_file().name} in CODEX_ML_TEST_DATA or in shared/data beside the checkout")
    assert {case["metric"] for case in CASES} >= {"bleu", "chrf", "squad", *ROUGE_NAMES}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_metric_reference_case_agrees_within_its_tolerance(case: dict[str, Any]) -> None:
    """Each published value is met within the tolerance that its line allows."""
    parameters, expected, tolerance = dict(case["params"]), case["expected"], case["tolerance"]
    if case["metric"] in ("bleu", "chrf"):
        assert parameters.pop("scale", 100) == 100
        assert score(case["metric"], case, **parameters).value == pytest.approx(expected, abs=tolerance)
    elif case["metric"] in ROUGE_NAMES:
        result = score(ROUGE_NAMES[case["metric"]], case, use_stemmer=parameters["use_stemmer"])
        assert result.value == pytest.approx(expected["fmeasure"], abs=tolerance)
    else:
        assert case["metric"] == "squad"
        for name in ("exact_match", "f1"):
            assert 100 * score(name, case).value == pytest.approx(expected[name], abs=tolerance)
