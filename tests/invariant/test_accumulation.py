"""The mean is the mean: batch size, accumulation and padding change no step (DESIGN.md, promise 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.data.batches import collate, predicting_positions, steps_per_epoch
from codex_ml.modeling.forward import supervised_loss
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.loop import run_training

Bench = Any  # the class lives in conftest.py, which cannot be imported by name
STEPS = 20
RELATIVE = 1e-5


def curve(bench: Bench, step_losses: Any, micro_batch_size: int, accumulation: int, **values: Any) -> Any:
    """Train `STEPS` steps from the same start and return the collected losses and the final weights."""
    kind = values.get("kind", "lora")
    model = bench.model(kind)
    job = bench.job(
        model,
        f"{micro_batch_size}x{accumulation}",
        STEPS,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation,
        **values,
    )
    hook = step_losses()
    state = TrainerState()
    run_training(job, state, [hook])
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return hook, state, trained


def assert_equivalent(one: list[float], other: list[float]) -> None:
    """Assert that two curves agree step by step and that what differs has no direction."""
    residual = (np.array(other) - np.array(one)) / np.array(one)
    assert np.abs(residual).max() <= RELATIVE
    assert abs(residual.mean()) <= RELATIVE / 10


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_accumulation_eight_by_one_equals_one_by_eight_and_four_by_two(
    bench: Bench, step_losses: Any, kind: str
) -> None:
    """Twenty steps over records of very different lengths, partial last windows included, give the same losses."""
    records = bench.records()
    assert len(records) % 8 != 0
    assert steps_per_epoch(len(records), 8) * 3 < STEPS
    curves = {shape: curve(bench, step_losses, *shape, kind=kind) for shape in ((8, 1), (1, 8), (4, 2))}
    reference, reference_state, reference_weights = curves[8, 1]
    assert reference.losses[-1] < reference.losses[0]
    for shape in ((1, 8), (4, 2)):
        other, state, weights = curves[shape]
        assert_equivalent(reference.losses, other.losses)
        assert_equivalent(reference.norms, other.norms)
        assert (state.trained_tokens, state.masked_tokens) == (
            reference_state.trained_tokens,
            reference_state.masked_tokens,
        )
        assert state.padding_tokens < reference_state.padding_tokens
        for name, weight in reference_weights.items():
            assert torch.allclose(weight, weights[name], rtol=1e-3, atol=1e-4), name
    assert curves[1, 8][1].padding_tokens == 0


def test_accumulation_last_window_of_fewer_records_is_weighted_by_its_tokens(bench: Bench, step_losses: Any) -> None:
    """A partial window has the mean of its own tokens: one record alone gives the loss of that record."""
    records = bench.records(9)
    curves = [curve(bench, step_losses, *shape, records=records)[0] for shape in ((8, 1), (1, 8), (3, 3))]
    assert_equivalent(curves[0].losses, curves[1].losses)
    # A window of nine is another window; the test would be blind if every shape gave the same curve.
    assert np.abs(np.array(curves[2].losses) - np.array(curves[0].losses)).max() > 1e-3


def test_loss_padded_further_is_unchanged(bench: Bench) -> None:
    """Padding to a longer length changes neither the loss nor the count nor the gradient."""
    model = bench.model().eval()
    records = bench.records(6)
    short = collate(records, 0)
    extra = 24

    def longer(tensor: torch.Tensor, fill: int) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, extra), value=fill)

    labels = longer(short.labels, -100)
    long = replace(
        short,
        input_ids=longer(short.input_ids, 5),
        attention_mask=longer(short.attention_mask, 0),
        labels=labels,
        predicting=torch.from_numpy(predicting_positions(labels.numpy())),
    )
    gradients = []
    outcomes = []
    for batch in (short, long):
        model.zero_grad()
        loss = supervised_loss(model, batch)
        loss.loss_sum.backward()
        outcomes.append(loss)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert outcomes[0].supervised == outcomes[1].supervised
    assert float(outcomes[1].loss_sum.detach()) == pytest.approx(float(outcomes[0].loss_sum.detach()), rel=RELATIVE)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_loss_batched_equals_record_by_record(bench: Bench) -> None:
    """A record's loss does not depend on its neighbours; the pad id is of no account, even end-of-sequence."""
    model = bench.model().eval()
    records = bench.records(6)
    with torch.no_grad():
        alone = sum(float(supervised_loss(model, collate([record], 0)).loss_sum) for record in records)
        for pad_id in (0, 2, 300):
            together = float(supervised_loss(model, collate(records, pad_id)).loss_sum)
            assert together == pytest.approx(alone, rel=RELATIVE)


def test_loss_changed_prompt_labels_change_nothing(bench: Bench) -> None:
    """Only supervised positions count: the same ids with the mask of the prompt cleared twice give one loss."""
    model = bench.model().eval()
    record = bench.records(1)[0]
    batch = collate([record], 0)
    whole = collate([replace(record, supervised=tuple(True for _ in record.input_ids))], 0)
    with torch.no_grad():
        part = supervised_loss(model, batch)
        full = supervised_loss(model, whole)
    assert part.supervised == sum(record.supervised[1:])
    assert full.supervised == len(record.input_ids) - 1
    assert float(part.loss_sum) < float(full.loss_sum)
