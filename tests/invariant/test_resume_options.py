"""Interrupted equals uninterrupted for what a run may keep besides: averaged weights, half precision, a loss scale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from codex_ml.models.model_files import write_model
from codex_ml.peft.adapter_files import load_adapter, write_adapter
from codex_ml.training.averaging import AveragedWeights
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainerDependencies, TrainingResult, run_training
from codex_ml.training.optimizer import GROWTH_STEPS

Bench = Any  # the class lives in conftest.py, which cannot be imported by name
STEPS, STOP = 9, 4


def files(checkpoint: Path) -> dict[str, bytes]:
    """Return every file of a checkpoint, those in its directories too."""
    return {
        file.relative_to(checkpoint).as_posix(): file.read_bytes()
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file()
    }


def make_job(bench: Bench, name: str, kind: str, decay: float | None, seed: int = 0, **values: Any) -> TrainingJob:
    """Return a job, with an average where a decay is given; another seed draws other first weights."""
    model = bench.model(kind, 0.1 if kind == "lora" else 0.0, seed=seed)
    job = bench.job(model, name, STEPS, kind, micro_batch_size=4, gradient_accumulation_steps=2, **values)
    if decay is None:
        return job
    write = write_adapter if kind == "lora" else write_model
    return replace(job, average=AveragedWeights(model, decay), write_averaged=lambda directory: write(model, directory))


def straight_and_resumed(
    bench: Bench, kind: str, decay: float | None, start: TrainerState, **values: Any
) -> tuple[TrainingResult, TrainingResult, list[int]]:
    """Train without a stop, and with one; return both ends and the steps at which gradients overflowed after it."""
    straight = run_training(make_job(bench, "straight", kind, decay, **values), replace(start))
    asked = iter([None] * (STOP - 1) + ["SIGTERM"])
    first = make_job(bench, "first", kind, decay, **values)
    stopped = run_training(first, replace(start), dependencies=TrainerDependencies(stop_requested=lambda: next(asked)))
    loaded = load_checkpoint(stopped.last_checkpoint)
    second = make_job(bench, "second", kind, decay, seed=77, **values)
    bench.restore(second.model, kind, stopped.last_checkpoint)
    overflows: list[int] = []

    def log(kind: str, /, **fields: Any) -> None:
        assert kind == "loss_scale_overflow"
        overflows.append(fields["step"])

    resumed = run_training(second, loaded.state, resume=loaded, dependencies=TrainerDependencies(log_event=log))
    return straight, resumed, overflows


@pytest.mark.parametrize(
    ("kind", "decay", "precision"),
    [
        ("lora", 0.7, "none"),
        ("none", 0.7, "none"),
        ("lora", None, "bfloat16"),
        ("none", 0.7, "bfloat16"),
        ("lora", 0.7, "float16"),
    ],
)
def test_resume_with_option_equals_straight_run(bench: Bench, kind: str, decay: float | None, precision: str) -> None:
    """Every byte of the last checkpoint: weights, average, moments, generators, counters."""
    straight, resumed, _ = straight_and_resumed(bench, kind, decay, TrainerState(), mixed_precision=precision)
    expected, got = files(straight.last_checkpoint), files(resumed.last_checkpoint)
    assert ("ema/adapter_model.safetensors" in got or "ema/model.safetensors" in got) is (decay is not None)
    assert json.loads(got["trainer_state.json"]) == json.loads(expected["trainer_state.json"])
    assert got == expected


def test_resume_with_overflows_before_and_after_equals_straight_run(bench: Bench) -> None:
    """A scale that fits is doubled just after the stop, overflows and falls again: the same bytes, no window lost."""
    start = TrainerState(loss_scale=2.0**22)
    probe = run_training(make_job(bench, "probe", "none", None, mixed_precision="float16"), replace(start))
    settled = probe.state.loss_scale
    assert probe.state.overflows > 0
    assert settled is not None
    # One that fits, about to be doubled just after the stop.
    start = TrainerState(loss_scale=settled, steps_at_loss_scale=GROWTH_STEPS - STOP - 1)
    straight, resumed, overflows = straight_and_resumed(bench, "none", None, start, mixed_precision="float16")
    assert overflows
    assert min(overflows) > STOP
    assert straight.state.overflows == resumed.state.overflows == len(overflows)
    assert files(resumed.last_checkpoint) == files(straight.last_checkpoint)
    # The same records, step by step, as without any scale.
    plain = run_training(make_job(bench, "plain", "none", None), TrainerState())
    assert plain.state.trained_tokens == resumed.state.trained_tokens


def test_resume_with_overflows_in_its_first_window_equals_straight_run(bench: Bench) -> None:
    """Far too large a scale at the start: several tries of one window, before the stop."""
    straight, resumed, _ = straight_and_resumed(
        bench, "none", None, TrainerState(loss_scale=2.0**24), mixed_precision="float16"
    )
    assert straight.state.overflows > 1
    assert files(resumed.last_checkpoint) == files(straight.last_checkpoint)


def test_averaged_adapter_loads_with_peft_and_computes_as_the_average_did(bench: Bench) -> None:
    """ema/ is a plain adapter directory: on a fresh base it gives the very logits of the model under its average."""
    job = make_job(bench, "run", "lora", 0.7)
    result = run_training(job, TrainerState())
    ids = torch.arange(6, 18)[None]
    assert job.average is not None
    job.model.eval()
    with torch.no_grad():
        own = job.model(input_ids=ids).logits
        with job.average.applied():
            expected = job.model(input_ids=ids).logits
    base = AutoModelForCausalLM.from_pretrained(bench.base, local_files_only=True)
    loaded: nn.Module = load_adapter(base, result.last_checkpoint / "ema")
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, expected)
    assert not torch.equal(own, expected)
    weights = load_file(result.last_checkpoint / "adapter_model.safetensors")
    average = load_file(result.last_checkpoint / "ema" / "adapter_model.safetensors")
    assert average.keys() == weights.keys()


def test_mixed_precision_none_and_no_average_change_no_byte(bench: Bench) -> None:
    """Said outright or left out, the defaults are the loop as it is without these options."""
    implicit = run_training(make_job(bench, "a", "lora", None), TrainerState())
    explicit = run_training(make_job(bench, "b", "lora", None, mixed_precision="none"), TrainerState())
    averaged = run_training(make_job(bench, "c", "lora", 0.9), TrainerState())
    name = "adapter_model.safetensors"
    assert files(implicit.last_checkpoint) == files(explicit.last_checkpoint)
    assert files(averaged.last_checkpoint)[name] == files(implicit.last_checkpoint)[name]
    assert implicit.state == explicit.state == averaged.state
