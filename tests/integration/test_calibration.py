"""What a dry run measures: memory of a pass on a short row, and time on the first steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from codex_ml.clock import utc_now
from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.data.batches import make_batch, window_of_step
from codex_ml.modeling.loss import supervised_loss
from codex_ml.modeling.peak_memory import PeakMemory
from codex_ml.recipes.calibration import Machine, calibrate
from codex_ml.recipes.model_setup import build_trainable_model, model_size
from codex_ml.recipes.preparation import prepare
from codex_ml.recipes.safety_filters import Witness
from codex_ml.training.plan import Plan, make_plan


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that goes on by so much at each look."""
    times: Iterator[float] = iter(seconds * tick for tick in range(10**6))
    return lambda: next(times)


class Dry:
    """A dry run's parts, made from overrides."""

    def __init__(self, *overrides: str) -> None:
        self.config = validate_train(compose("train", overrides=list(overrides)))
        witness = Witness("train", lambda: "nobody", utc_now)
        prepared = prepare(self.config, lambda _: None, witness=witness)
        self.records = prepared.dataset.require("train")
        self.trainable = build_trainable_model(self.config, prepared.tokenizer)
        size = model_size(self.config, self.trainable)
        self.plan = make_plan(self.config.training, self.records, size, self.config.run.seed)

    def calibrated(self, machine: Machine | None = None) -> Plan:
        """Return the plan after the calibration."""
        machine = machine or Machine(clock=ticking(0.5))
        return calibrate(self.config, self.records, self.trainable, self.plan, 0, machine)

    def measured_pass(self) -> int:
        """Return the peak of the tensors of the run's own largest pass."""
        window = self.config.training.micro_batch_size
        peaks = []
        for step in range(self.plan.total_steps):
            indices = window_of_step(self.config.run.seed, step, len(self.records), window)
            batch = make_batch([self.records[index] for index in indices], 0, self.trainable.kernels.layout.kind)
            with PeakMemory([*self.trainable.model.parameters(), *self.trainable.model.buffers()]) as memory:
                loss = supervised_loss(self.trainable.model, batch)
                torch.autograd.backward(loss.loss_sum)
            del loss
            self.trainable.model.zero_grad(set_to_none=True)
            peaks.append(memory.peak_bytes)
        return max(peaks)


@pytest.fixture
def overrides(tmp_path: Path, tiny_llama_directory: Path, small_records: Path) -> list[str]:
    """Return what a short run of the tiny llama is composed of."""
    return [
        f"model.path={tiny_llama_directory}",
        f"data.path={small_records}",
        f"run.output_dir={tmp_path / 'runs'}",
        "training.max_steps=4",
        "training.micro_batch_size=4",
    ]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["model.batch_layout=padded"],
        ["adapter.kind=none"],
        ["training.gradient_checkpointing=true"],
        ["adapter.r=32", "adapter.dropout=0.1"],
        ["model.dtype=bfloat16"],
    ],
    ids=["ragged", "padded", "all-weights", "checkpointed", "dropout", "bfloat16"],
)
def test_calibration_memory_is_that_of_the_largest_pass(overrides: list[str], more: list[str]) -> None:
    """From two short rows, within 15 % of what the tensors of the run's own largest pass take."""
    dry = Dry(*overrides, *more)
    parts = dry.calibrated().memory_bytes
    planned = parts["activations"] + parts["gradients"] + parts["logits"]
    assert planned == pytest.approx(dry.measured_pass(), rel=0.15)


def test_calibration_time_follows_the_tokens_of_the_run(overrides: list[str]) -> None:
    """Steps of half a second each by the clock: four of them are timed, and four are to be made."""
    line = Dry(*overrides).calibrated().time_line
    assert line is not None
    # As many tokens in the timed steps as in those to be made, but for the first.
    assert 1.5 <= float(line.removeprefix("time: about ").partition(" s ")[0]) <= 2.5
    assert "for 4 steps (from 4 steps in 2.0 s;" in line


def test_calibration_without_memory_for_a_step_measures_no_time(overrides: list[str]) -> None:
    """Nothing is computed that would not fit, and the plan says why there is no time."""
    dry = Dry(*overrides)

    def no_clock() -> float:
        raise AssertionError("a step was timed")

    plan = dry.calibrated(Machine(clock=no_clock, available_bytes=lambda: 1000))
    assert plan.time_line == "time: not measured, as a step needs more memory than there is"
    assert plan.memory_measured


def test_dry_run_shows_measured_memory_and_time_and_writes_nothing(
    overrides: list[str], tmp_path: Path, command_line: Any
) -> None:
    """As typed."""
    answer = command_line.run("train", *overrides, "--dry-run", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "memory of tensors (measured on a short row): " in answer.stdout + answer.stderr
    assert "time: about " in answer.stdout + answer.stderr
    assert not (tmp_path / "runs").exists()
