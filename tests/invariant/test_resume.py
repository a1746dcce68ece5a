"""Interrupted equals uninterrupted: the final files of a resumed run are bit-identical (DESIGN.md, promise 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from codex_ml.data.batches import steps_per_epoch, window_of_step
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import VALIDATION_LOSS, Evaluation
from codex_ml.training.loop import run_training

Bench = Any  # the class lives in conftest.py, which cannot be imported by name
STEPS, STOP = 12, 5


def validations() -> Evaluation:
    """Return a validation that draws random numbers, as one that samples would."""
    return Evaluation(lambda: {VALIDATION_LOSS: float(torch.rand(1))}, every_steps=4, total_steps=STEPS)


def files(checkpoint: Path) -> dict[str, bytes]:
    """Return every file of a checkpoint."""
    return {file.name: file.read_bytes() for file in sorted(checkpoint.iterdir())}


@pytest.mark.parametrize(
    ("kind", "dropout", "shape"),
    [("lora", 0.0, (4, 2)), ("lora", 0.1, (4, 2)), ("lora", 0.1, (3, 1)), ("none", 0.0, (4, 2))],
)
def test_resume_twelve_steps_equal_five_and_seven_more(
    bench: Bench, kind: str, dropout: float, shape: tuple[int, int]
) -> None:
    """Stopped in the middle of an epoch and resumed into a model that was drawn otherwise: the same bytes."""
    values = {"kind": kind, "micro_batch_size": shape[0], "gradient_accumulation_steps": shape[1], "save_steps": STOP}
    window = shape[0] * shape[1]
    assert STOP % steps_per_epoch(len(bench.records()), window) != 0

    whole_job = bench.job(bench.model(kind, dropout), "whole", STEPS, **values)
    whole = run_training(whole_job, TrainerState(), [validations()])

    first_job = bench.job(bench.model(kind, dropout), "first", STEPS, keep_last=9, **values)
    run_training(first_job, TrainerState(), [validations()])
    checkpoint = first_job.checkpoints / f"step-{STOP:08d}"

    loaded = load_checkpoint(checkpoint)
    torch.rand(3)
    model = bench.restore(bench.model(kind, dropout, seed=99), kind, checkpoint)
    second_job = bench.job(model, "second", STEPS, **values)
    resumed = run_training(second_job, loaded.state, [validations()], resume=loaded)

    assert resumed.state.step == STEPS
    expected, got = files(whole.last_checkpoint), files(resumed.last_checkpoint)
    weights = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    assert got[weights] == expected[weights]
    # Not only the weights: moments, generators, counters, token counts and validation losses too.
    assert got["training_state.safetensors"] == expected["training_state.safetensors"]
    assert json.loads(got["trainer_state.json"]) == json.loads(expected["trainer_state.json"])
    assert got == expected


def test_resume_twice_equals_uninterrupted(bench: Bench) -> None:
    """A run that was stopped again and again ends where an unbroken one does, over the border of an epoch."""
    values = {"micro_batch_size": 8, "save_steps": 1, "keep_last": 99}
    whole = run_training(bench.job(bench.model(dropout=0.1), "whole", STEPS, **values), TrainerState())
    previous = bench.job(bench.model(dropout=0.1), "part-0", STEPS, **values)
    run_training(previous, TrainerState())
    result = None
    for stop in (2, 6, 11):
        loaded = load_checkpoint(previous.checkpoints / f"step-{stop:08d}")
        model = bench.restore(bench.model(dropout=0.1, seed=stop), "lora", loaded.directory)
        previous = bench.job(model, f"part-{stop}", STEPS, **values)
        result = run_training(previous, loaded.state, resume=loaded)
    assert result is not None
    assert files(result.last_checkpoint) == files(whole.last_checkpoint)


def test_seed_same_twice_is_bit_identical_and_another_differs(bench: Bench, step_losses: Any) -> None:
    """One seed, one order and one adapter; another seed, another order."""
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        hook = step_losses()
        result = run_training(bench.job(bench.model(), name, 4, seed=seed), TrainerState(), [hook])
        runs.append((hook.losses, files(result.last_checkpoint)))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][1]["adapter_model.safetensors"] != runs[2][1]["adapter_model.safetensors"]
    assert window_of_step(1, 0, 44, 8) != window_of_step(2, 0, 44, 8)
