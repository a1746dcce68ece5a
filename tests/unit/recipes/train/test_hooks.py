"""What the hooks of a training run write at a log step, and what they say is missing."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.monitoring.dependencies import DependencyStatus
from codex_ml.recipes.train.hooks import metric_writer, system_sampler

STEP = {
    "loss": 2.0,
    "step_loss": 1.0,
    "learning_rate": 0.1,
    "gradient_norm": 1.0,
    "supervised_tokens": 7.0,
    "supervised_tokens_per_second": 3.0,
    "memory_bytes": 5.0,
    "seconds_left": 9.0,
}


def written(metrics: dict[str, float], system: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return what a writer logs, by split."""
    lines: dict[str, Any] = {}
    metric_writer(lambda step, values, split: lines.update({split: (step, dict(values))}), lambda: system)(4, metrics)
    assert {step for step, _ in lines.values()} == {4}
    return {split: values for split, (_, values) in lines.items()}


def test_metric_writer_step_without_validation_writes_train_and_system() -> None:
    """What is for the screen only is left out; the machine's numbers have a split of their own."""
    lines = written(STEP, {"cpu_percent": 50.0})
    assert lines.keys() == {"train", "system"}
    assert lines["train"].keys() == STEP.keys() - {"step_loss", "seconds_left"}
    assert lines["system"] == {"cpu_percent": 50.0}


def test_metric_writer_validation_is_written_under_its_plain_names() -> None:
    """The metrics of a validation lose their prefix and go to the split they were measured on."""
    lines = written({**STEP, "validation_loss": 1.5, "validation_token_accuracy": 0.5}, {})
    assert lines["valid"] == {"loss": 1.5, "token_accuracy": 0.5}
    assert "system" not in lines


def status(state: Any) -> DependencyStatus:
    """Return the status of the GPU library."""
    return DependencyStatus("pynvml", state, "GPU memory in the log", "install it")


def test_system_sampler_on_cpu_asks_for_no_gpu() -> None:
    """A run on the CPU measures its process, and says nothing about a GPU library that it does not need."""
    measure = system_sampler("cpu", pytest.fail, lambda name: pytest.fail(name))
    assert measure().keys() == {"resident_bytes", "available_bytes", "cpu_percent"}


@pytest.mark.parametrize(("state", "said"), [("missing", 1), ("no_driver", 1), ("available", 0)])
def test_system_sampler_on_gpu_says_once_what_is_missing(state: str, said: int) -> None:
    """On a GPU the absence of its library, or of its driver, is a warning; what can be measured still is."""
    reported: list[DependencyStatus] = []
    measure = system_sampler("cuda:0", reported.append, lambda _name: status(state))
    assert [found.state for found in reported] == [state] * said
    assert "resident_bytes" in measure()
