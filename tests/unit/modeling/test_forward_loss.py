"""The summed loss against torch's own cross entropy, one record at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from codex_ml.data.batches import IGNORED_LABEL, predicting_positions
from codex_ml.modeling.forward import supervised_loss


@dataclass(frozen=True)
class Batch:
    """The three tensors of a padded batch."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: None = None
    record_lengths: None = None

    @property
    def predicting(self) -> Tensor:
        """Positions whose next token has a label."""
        return torch.from_numpy(predicting_positions(self.labels.numpy()))


RECORDS = [([9, 40, 41, 42], 2), ([7, 50, 51, 52, 53, 54, 55], 4), ([12, 60], 1)]  # ids, prompt length


def padded(records: list[tuple[list[int], int]], extra: int = 0) -> Batch:
    """Pad on the right, ``extra`` positions further than needed, and hide the prompt."""
    width = max(len(ids) for ids, _ in records) + extra
    input_ids = torch.zeros(len(records), width, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED_LABEL)
    for row, (ids, prompt_length) in enumerate(records):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
    return Batch(input_ids, attention_mask, labels)


@pytest.fixture(scope="module")
def models(tiny_llama_directory: Path, tiny_gpt2_directory: Path) -> dict[str, nn.Module]:
    """Return both tiny models in evaluation mode."""
    from transformers import AutoModelForCausalLM

    return {
        "llama": AutoModelForCausalLM.from_pretrained(tiny_llama_directory).eval(),
        "gpt2": AutoModelForCausalLM.from_pretrained(tiny_gpt2_directory).eval(),
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_supervised_loss_padded_batch_equals_cross_entropy_record_by_record(
    models: dict[str, nn.Module], kind: str
) -> None:
    """The sum over a padded batch is the sum of what torch says of each record alone."""
    expected, correct = 0.0, 0
    for ids, prompt_length in RECORDS:
        logits = models[kind](input_ids=torch.tensor([ids])).logits[0]
        shifted, targets = logits[prompt_length - 1 : -1], torch.tensor(ids[prompt_length:])
        expected += functional.cross_entropy(shifted, targets, reduction="sum").item()
        correct += int((shifted.argmax(-1) == targets).sum())
    scored = supervised_loss(models[kind], padded(RECORDS))
    assert scored.loss_sum.item() == pytest.approx(expected, rel=1e-6)
    assert scored.loss_sum.dtype == torch.float32
    assert scored.loss_sum.shape == ()
    assert int(scored.correct) == correct
    assert scored.supervised == 2 + 3 + 1


def test_supervised_loss_own_choices_as_targets_counts_them_correct(models: dict[str, nn.Module]) -> None:
    """A token that is the model's first choice counts as correct, another does not."""
    prompt = [9, 40, 41]
    choice = int(models["llama"](input_ids=torch.tensor([prompt])).logits[0, -1].argmax())
    other = (choice + 1) % 300
    scored = supervised_loss(models["llama"], padded([([*prompt, choice], 3), ([*prompt, other], 3)]))
    assert int(scored.correct) == 1


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_supervised_loss_more_padding_changes_nothing(models: dict[str, nn.Module], kind: str) -> None:
    """Padding is neither seen nor scored."""
    tight = supervised_loss(models[kind], padded(RECORDS))
    loose = supervised_loss(models[kind], padded(RECORDS, extra=9))
    assert loose.loss_sum.item() == pytest.approx(tight.loss_sum.item(), rel=1e-6)
    assert loose.supervised == tight.supervised
    assert int(loose.correct) == int(tight.correct)


def test_supervised_loss_attention_mask_reaches_the_model(models: dict[str, nn.Module]) -> None:
    """Masked tokens before a record are not seen: with relative positions its loss is that of the record alone."""
    ids, prompt_length = RECORDS[1]
    alone = supervised_loss(models["llama"], padded([(ids, prompt_length)]))
    shifted = padded([([33, 34, 35, *ids], prompt_length + 3)])
    shifted.attention_mask[0, :3] = 0
    assert supervised_loss(models["llama"], shifted).loss_sum.item() == pytest.approx(alone.loss_sum.item(), rel=1e-5)


def test_supervised_loss_prompt_labels_are_scored_only_when_given(models: dict[str, nn.Module]) -> None:
    """Supervising the prompt too scores its tokens on top; the first of a record has nothing before it."""
    batch = padded(RECORDS)
    everything = Batch(
        batch.input_ids, batch.attention_mask, batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    )
    assert supervised_loss(models["llama"], everything).supervised == 3 + 6 + 1
    assert supervised_loss(models["llama"], everything).loss_sum > supervised_loss(models["llama"], batch).loss_sum


def test_supervised_loss_nothing_supervised_is_a_differentiable_zero(models: dict[str, nn.Module]) -> None:
    """A micro-batch without supervised tokens adds zero and still has a graph for backward."""
    scored = supervised_loss(models["llama"], padded([([5, 6, 7], 3)]))
    assert scored.supervised == 0
    assert scored.loss_sum.item() == 0.0
    scored.loss_sum.backward()


def test_supervised_loss_nan_weights_give_nan(tiny_llama_directory: Path) -> None:
    """A NaN in the model reaches the loss instead of being dropped on the way."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama_directory)
    with torch.no_grad():
        model.lm_head.weight[17, 0] = float("nan")
    assert supervised_loss(model, padded(RECORDS)).loss_sum.isnan()


def test_supervised_loss_low_precision_logits_are_summed_in_float32() -> None:
    """Bfloat16 logits are cast before the softmax, so that the sum keeps what bfloat16 would round away."""
    torch.manual_seed(0)
    logits = torch.randn(1, 40, 64).to(torch.bfloat16)
    batch = padded([(list(range(40)), 1)])
    scored = supervised_loss(lambda **_: SimpleNamespace(logits=logits), batch)
    expected = functional.cross_entropy(logits[0, :-1].float(), batch.input_ids[0, 1:], reduction="sum")
    assert scored.loss_sum.item() == expected.item()
