"""`training.micro_batch_size=auto` in a run: what it chooses by the memory at hand, and what a resume makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.recipes.train.calibration import Machine
from codex_ml.recipes.train.job import TrainDependencies, TrainOutcome, plan_only, train
from codex_ml.tracking.opening import TrackingDependencies

MIB = 1 << 20


@pytest.fixture
def overrides(tmp_path: Path, tiny_llama_directory: Path, small_records: Path) -> list[str]:
    """Return what a short run of the tiny llama is composed of."""
    return [
        f"model.path={tiny_llama_directory}",
        f"data.path={small_records}",
        f"run.output_dir={tmp_path / 'runs'}",
        "training.max_steps=3",
    ]


class Workplace:
    """Trains with so much memory at hand, and keeps what was said."""

    def __init__(self, overrides: list[str]) -> None:
        self._overrides = overrides
        self.said: list[str] = []

    def train(self, available: int, *more: str) -> TrainOutcome:
        """Run to the end."""
        asked = validate_train(compose("train", overrides=[*self._overrides, *more]))
        machine = Machine(available_bytes=lambda _device: available)
        return train(asked, TrainDependencies(emit=self.said.append, machine=machine))

    def advice(self, available: int, *more: str) -> str:
        """Return the plan of a dry run as text."""
        asked = validate_train(compose("train", overrides=[*self._overrides, *more]))
        machine = Machine(available_bytes=lambda _device: available)
        return "\n".join(plan_only(asked, TrainDependencies(emit=lambda _: None, machine=machine)))


def test_auto_chooses_by_the_memory_at_hand_and_a_resume_keeps_it(overrides: list[str]) -> None:
    """Little memory: smaller passes, the number in the run's config; much memory at the resume changes nothing."""
    workplace = Workplace(overrides)
    auto = "training.micro_batch_size=auto"
    little = workplace.train(2 * MIB, auto, "training.save_steps=1")
    assert little.directory is not None
    written = yaml.safe_load((little.directory / "config.yaml").read_text("utf-8"))["training"]
    size, steps = written["micro_batch_size"], written["gradient_accumulation_steps"]
    assert size in (1, 2, 4)
    assert size * steps == 8
    assert any(line.startswith(f"training.micro_batch_size={size} ") for line in workplace.said)
    workplace.said.clear()
    more = workplace.train(1 << 40, auto, "training.max_steps=5", f"run.resume_from={little.directory}")
    assert more.directory == little.directory
    assert any("trained 5 steps" in line for line in more.lines)


def test_auto_much_memory_takes_the_whole_step(overrides: list[str]) -> None:
    """As many records as a step has, and it says that this is all."""
    text = Workplace(overrides).advice(1 << 40, "training.micro_batch_size=auto")
    assert "training.micro_batch_size=8 training.gradient_accumulation_steps=1: all records of a step fit" in text


def test_auto_no_room_for_one_record_says_so(overrides: list[str]) -> None:
    """The least there is, and a sentence that it may not be enough."""
    text = Workplace(overrides).advice(1000, "training.micro_batch_size=auto")
    assert "training.micro_batch_size=1 training.gradient_accumulation_steps=8: not even one record" in text


def test_number_that_does_not_fit_is_warned_of_with_one_that_does(overrides: list[str]) -> None:
    """Before anything is loaded, with the same steps; a run that fits hears nothing."""
    workplace = Workplace(overrides)
    text = workplace.advice(int(1.6 * MIB), "training.micro_batch_size=16")
    assert "warning: only 1.6 MiB at hand; training.micro_batch_size=" in text
    assert "warning" not in workplace.advice(1 << 40, "training.micro_batch_size=16")


def test_auto_beside_a_token_budget_is_refused(overrides: list[str], tmp_path: Path, command_line) -> None:
    """Two ways to cut a step are one too many."""
    asked = [*overrides, "training.micro_batch_size=auto", "training.tokens_per_micro_batch=64"]
    answer = command_line.run("train", *asked, directory=tmp_path)
    assert answer.returncode == 2
    assert "training.tokens_per_micro_batch" in answer.stderr
    assert "both say how a step is cut" in answer.stderr


def test_dry_run_names_a_tracker_that_is_not_installed(overrides: list[str]) -> None:
    """The run would go without it, so the plan has the same warning."""
    asked = validate_train(compose("train", overrides=[*overrides, "tracking.sinks=[mlflow]"]))
    for found, warnings in ((None, 1), (object(), 0)):
        tracking = TrackingDependencies(find_spec=lambda _, found=found: found)  # type: ignore[misc]
        lines = plan_only(asked, TrainDependencies(emit=lambda _: None, tracking=tracking))
        shown = [line for line in lines if line.startswith("warning: mlflow is not installed")]
        assert len(shown) == warnings
        assert all("pip install 'codex-ml[tracking]'" in line for line in shown)
