"""The average of the weights: its formula, that the model gets its own weights back, and that it survives a resume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codex_ml.errors import CheckpointError
from codex_ml.training.averaging import AveragedWeights, averaged_tensors, averaging_lines
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.job import TrainingJob
from codex_ml.training.loop import TrainingResult, run_training

Workshop = Any  # the class lives in conftest.py, which cannot be imported by name


def test_averaging_lines_say_that_validation_scores_the_average() -> None:
    """Nothing where no average is kept."""
    assert averaging_lines(None) == []
    assert averaging_lines(0.99) == [
        "averaged weights, decay 0.99: validation scores the average, which is saved as ema/"
    ]


def line(*values: float) -> nn.Linear:
    """Return a layer of one trainable row and a frozen bias."""
    layer = nn.Linear(len(values), 1)
    layer.bias.requires_grad_(False)
    put(layer, *values)
    return layer


def put(layer: nn.Linear, *values: float) -> None:
    """Set the weights of a layer."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))


def averaging(job: TrainingJob, decay: float = 0.8) -> TrainingJob:
    """Return the same job with an average."""
    return replace(
        job,
        average=AveragedWeights(job.model, decay),
        write_averaged=lambda directory: save_file(job.model.state_dict(), directory / "model.safetensors"),
    )


def test_averaged_weights_equal_the_weighted_mean_written_down() -> None:
    """Σ d^(t-i) w_i / Σ d^(t-i), and after the first step the weights themselves; what is frozen is left out."""
    layer, weights, decay = line(0.0, 0.0), [(1.0, 5.0), (2.0, -3.0), (4.0, 0.25)], 0.9
    average = AveragedWeights(layer, decay)
    for step, values in enumerate(weights, start=1):
        put(layer, *values)
        average.update(step)
        if step == 1:
            assert torch.equal(average.tensors()["average.weight"], layer.weight.detach())
    factors = torch.tensor([decay**2, decay, 1.0], dtype=torch.float64)
    expected = (factors[:, None] * torch.tensor(weights, dtype=torch.float64)).sum(0) / factors.sum()
    assert torch.allclose(average.tensors()["average.weight"].double(), expected, rtol=1e-6)
    assert average.tensors().keys() == {"average.weight"}


def test_averaged_weights_of_half_precision_parameters_are_float32() -> None:
    """A small step is not lost in the average, only where it is put into the model."""
    layer = line(1.0).to(torch.bfloat16)
    average = AveragedWeights(layer, 0.999)
    average.update(1)
    put(layer, 1.0078125)
    average.update(2)
    assert average.tensors()["average.weight"].dtype == torch.float32
    assert 1.0 < average.tensors()["average.weight"].item() < 1.0078125
    with average.applied():
        assert layer.weight.dtype == torch.bfloat16


def test_applied_gives_the_own_weights_back_also_after_an_error() -> None:
    """Inside the model computes with the average, outside with the very tensors it had."""
    layer = line(1.0)
    average = AveragedWeights(layer, 0.5)
    with average.applied():
        assert layer.weight.item() == 1.0
    average.update(1)
    put(layer, 9.0)
    own = layer.weight.data_ptr()

    def fail_inside() -> None:
        with average.applied():
            assert layer.weight.item() == 1.0
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()
    assert (layer.weight.item(), layer.weight.data_ptr()) == (9.0, own)


@pytest.mark.parametrize("tensors", [{}, {"average.other": torch.zeros(1, 1)}, {"average.weight": torch.zeros(2, 2)}])
def test_restore_average_of_other_parameters_is_refused(tensors: dict[str, Tensor]) -> None:
    """Absent, of another name, of another shape: the resume stops."""
    with pytest.raises(CheckpointError, match="averaged weights of the checkpoint"):
        AveragedWeights(line(1.0), 0.5).restore(tensors)


def test_averaged_tensors_without_an_average_are_none() -> None:
    """A run that keeps no average keeps nothing of one."""
    assert averaged_tensors(None) == {}


def run(job: TrainingJob) -> TrainingResult:
    """Train a job from its start."""
    return run_training(job, TrainerState())


def test_run_training_with_average_changes_no_weight_and_writes_it_beside(workshop: Workshop) -> None:
    """Averaging is an onlooker: the same steps; ema/ holds what the state says, in the model's own form."""
    plain = run(workshop.job(name="plain"))
    job = averaging(workshop.job(name="averaged"))
    averaged = run(job)
    weights = load_file(averaged.last_checkpoint / "model.safetensors")
    assert all(
        torch.equal(tensor, weights[name])
        for name, tensor in load_file(plain.last_checkpoint / "model.safetensors").items()
    )
    beside = load_file(averaged.last_checkpoint / "ema" / "model.safetensors")
    kept = load_checkpoint(averaged.last_checkpoint).tensors
    assert all(torch.equal(beside[name], kept[f"average.{name}"]) for name in beside)
    assert any(not torch.equal(beside[name], weights[name]) for name in beside)


def test_run_training_resume_without_the_saved_average_is_refused(workshop: Workshop) -> None:
    """An average cannot begin in the middle of a run."""
    result = run(workshop.job(name="a", total_steps=2))
    loaded = load_checkpoint(result.last_checkpoint)
    with pytest.raises(CheckpointError, match="averaged weights"):
        run_training(averaging(workshop.job(name="b")), loaded.state, resume=loaded)
