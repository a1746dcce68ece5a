"""What a dry run says: memory counted without numbers, and time measured on the first steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.io.clock import utc_now
from codex_ml.modeling.memory_estimate import PeakMemory
from codex_ml.recipes.inputs import BypassRecorder
from codex_ml.recipes.preparation import prepare
from codex_ml.recipes.train.calibration import Machine, calibrate
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.recipes.train.plan import build_memory_probe, plan_run
from codex_ml.recipes.train.setup import build_trainable_model
from codex_ml.training.plan import Plan


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that goes on by so much at each look."""
    times: Iterator[float] = iter(seconds * tick for tick in range(10**6))
    return lambda: next(times)


class Dry:
    """A dry run's parts, made from overrides."""

    def __init__(self, *overrides: str) -> None:
        self.config = validate_train(compose("train", overrides=list(overrides)))
        bypass_recorder = BypassRecorder("train", lambda: "nobody", utc_now)
        self.prepared = prepare(self.config, lambda _: None, bypass_recorder=bypass_recorder)
        self.outlined = build_memory_probe(self.config, self.prepared)
        self.plan = plan_run(self.config, self.prepared, self.outlined)

    def calibrated(self, machine: Machine | None = None) -> Plan:
        """Return the plan after the calibration."""
        machine = machine or Machine(clock=ticking(0.5))
        trainable = build_trainable_model(self.config, self.prepared.tokenizer)
        return calibrate(self.config, self.prepared.dataset.require("train"), trainable, self.plan, 0, machine)


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


CONFIGURATIONS = {
    "ragged": [],
    "padded": ["model.batch_layout=padded"],
    "all-weights": ["adapter.kind=none"],
    "all-weights-averaged": ["adapter.kind=none", "training.ema_decay=0.9"],
    "checkpointed": ["training.gradient_checkpointing=true"],
    "checkpointed-padded": ["training.gradient_checkpointing=true", "model.batch_layout=padded"],
    "dropout": ["adapter.r=32", "adapter.dropout=0.1"],
    "bfloat16": ["model.dtype=bfloat16"],
    "mixed": ["training.mixed_precision=bfloat16"],
    "accumulated": ["training.gradient_accumulation_steps=3"],
    "by-tokens": ["training.tokens_per_micro_batch=64", "training.micro_batch_size=8"],
}


@pytest.mark.parametrize("more", CONFIGURATIONS.values(), ids=list(CONFIGURATIONS))
def test_plan_memory_is_that_of_the_run(overrides: list[str], more: list[str]) -> None:
    """Before a weight is loaded, within 15 % of the most that the tensors of the whole run take.

    Counted in the run itself: loading, every step, the optimizer, validation and checkpoints.
    """
    plan = Dry(*overrides, *more).plan
    assert plan.estimated_because is None
    with PeakMemory([]) as memory:
        train(validate_train(compose("train", overrides=[*overrides, *more])), TrainDependencies(emit=lambda _: None))
    assert plan.total_bytes == pytest.approx(memory.peak_bytes, rel=0.15)


def test_plan_reads_no_weight(overrides: list[str], tiny_llama_directory: Path, tmp_path: Path) -> None:
    """A file of weights with numbers that cannot be read is enough: their shapes are in its header."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama_directory, copy)
    weights = copy / "model.safetensors"
    size = weights.stat().st_size
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    with weights.open("r+b") as file:
        file.truncate(header)
        file.truncate(size)  # zeros where the numbers were
    asked = [f"model.path={copy}" if value.startswith("model.path=") else value for value in overrides]
    assert Dry(*asked).plan.memory_bytes == Dry(*overrides).plan.memory_bytes


def test_plan_model_that_looks_at_numbers_is_estimated(overrides: list[str]) -> None:
    """What cannot be followed without numbers gives a plan all the same, which says so."""
    dry = Dry(*overrides)

    class Curious(torch.nn.Module):
        """Asks for a number."""

        def forward(self, **inputs: Any) -> Any:
            """Ask."""
            raise RuntimeError(str(inputs["input_ids"].sum().item()))

    plan = plan_run(dry.config, dry.prepared, replace(dry.outlined, model=_with_parameters(Curious(), dry)))
    assert plan.estimated_because is not None
    assert "estimate, as LlamaForCausalLM looks at numbers" in "\n".join(plan.lines())
    assert plan.memory_bytes["activations"] > 0


def _with_parameters(module: torch.nn.Module, dry: Dry) -> torch.nn.Module:
    """Give a module the parameters of a dry run's model, so that it counts as one."""
    module.model = dry.outlined.model
    return module


def test_calibration_time_follows_the_tokens_of_the_run(overrides: list[str]) -> None:
    """Steps of half a second each by the clock: four of them are timed, and four are to be made."""
    line = Dry(*overrides).calibrated().time_line
    assert line is not None
    # As many tokens in the timed steps as in those to be made, but for the first.
    assert 1.5 <= float(line.removeprefix("time: about ").partition(" s ")[0]) <= 2.5
    assert "for 4 steps (from 4 steps in 2.0 s;" in line


@pytest.mark.parametrize(
    ("first", "others", "expected"), [(9.0, 3.0, "from 1 steps in 3.0 s"), (100.0, 3.0, "from 1 steps in 100.0 s")]
)
def test_calibration_long_first_step_counts_only_where_a_second_is_not_worth_the_wait(
    overrides: list[str], first: float, others: float, expected: str
) -> None:
    """A large model touches its memory for the first time then; only a very long step stands for all."""
    times: Iterator[float] = iter([0.0, first, *(first + others * tick for tick in (1, 2, 3, 4))])
    line = Dry(*overrides).calibrated(Machine(clock=lambda: next(times))).time_line
    assert line is not None
    assert expected in line


def test_calibration_without_memory_for_a_step_measures_no_time(overrides: list[str]) -> None:
    """Nothing is computed that would not fit, and the plan says why there is no time."""
    dry = Dry(*overrides)

    def no_clock() -> float:
        raise AssertionError("a step was timed")

    plan = dry.calibrated(Machine(clock=no_clock, available_bytes=lambda _device: 1000))
    assert plan.time_line == "time: not measured, as a step needs more memory than there is"


def test_dry_run_shows_measured_memory_and_time_and_writes_nothing(
    overrides: list[str], tmp_path: Path, command_line: Any
) -> None:
    """As typed."""
    answer = command_line.run("train", *overrides, "--dry-run", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "memory of tensors (counted): " in answer.stdout + answer.stderr
    assert "time: about " in answer.stdout + answer.stderr
    assert not (tmp_path / "runs").exists()
