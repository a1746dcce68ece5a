"""Ragged rows are the padded batch, computed without padding: same loss, same gradients, and no record sees another."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from codex_ml.data.batches import collate, concatenate
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import ModelError
from codex_ml.modeling.attention import record_attention
from codex_ml.modeling.forward import RAGGED_FAMILIES, configure_batch_layout, supervised_loss
from codex_ml.peft.peft_adapter import apply_lora
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.loop import run_training

Bench = Any  # the class lives in conftest.py, which cannot be imported by name
VOCABULARY = 307
GRADIENT_RELATIVE = 5e-6
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE, tie_word_embeddings=True, attention_bias=True)),
    "llama-yarn": lambda: LlamaForCausalLM(
        LlamaConfig(**_SHAPE, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0})
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_SHAPE)),
    "qwen2-sliding": lambda: Qwen2ForCausalLM(
        Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=7, max_window_layers=1)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_SHAPE, sliding_window=None)),
    "mistral-sliding": lambda: MistralForCausalLM(MistralConfig(**_SHAPE, sliding_window=5)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=4, n_positions=128, resid_pdrop=0, embd_pdrop=0,
                   attn_pdrop=0, scale_attn_by_inverse_layer_idx=True)
    ),
}  # fmt: skip


def records(count: int = 9, longest: int = 41) -> list[TokenizedRecord]:
    """Return records of 2 to ``longest`` tokens, two of them of one length, one with nothing to learn."""
    draw = random.Random(5)
    made = []
    for index in range(count):
        length = (2, 13, 13, longest, 3, 29, 7, 20, 5)[index % 9]
        ids = tuple(draw.randrange(VOCABULARY) for _ in range(length))
        prompt_length = length if index == 6 else draw.randrange(length)
        supervised = tuple(position >= prompt_length for position in range(length))
        made.append(TokenizedRecord(f"r:{index}", ids, supervised, prompt_length, "", None))
    return made


def pair(family: str, kind: str) -> tuple[nn.Module, nn.Module]:
    """Return the same model twice: as transformers computes it, and laid out for ragged rows."""
    torch.manual_seed(3)
    base = FAMILIES[family]()
    assert base.config._attn_implementation == "sdpa"
    if kind != "none":
        targets = {"all": "all-linear", "upper": "all-linear", "head": ["lm_head"]}[kind]
        model: nn.Module = apply_lora(base, r=4, target_modules=targets)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                # B is zero at the start, and half of the gradients with it.
                torch.nn.init.normal_(parameter, std=0.02)
                parameter.requires_grad = kind != "upper" or ".2." in name
    else:
        model = base
    plain = copy.deepcopy(model)
    assert configure_batch_layout(model, "ragged").kind == "ragged"
    return plain.eval(), model.eval()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients of a model by name, and let them go."""
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Assert that two models have gradients for the same parameters, equal relative to their norm."""
    assert one.keys() == other.keys()
    assert len(one) > 1
    whole = torch.cat([gradient.flatten() for gradient in one.values()])
    assert (whole - torch.cat([other[name].flatten() for name in one])).norm() <= GRADIENT_RELATIVE * whole.norm()
    for name, gradient in one.items():
        difference = (gradient - other[name]).norm()
        # Some are zero but for rounding (the bias of keys): those are held to the norm of all.
        assert difference <= GRADIENT_RELATIVE * gradient.norm() + 1e-8 * whole.norm(), (name, difference)


def test_ragged_every_family_that_is_let_in_is_proven_here() -> None:
    """A family that is added to the list needs its rows in this file."""
    assert {family.split("-")[0] for family in FAMILIES} == RAGGED_FAMILIES


@pytest.mark.parametrize("kind", ["all", "upper", "head", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_row_equals_records_one_by_one(family: str, kind: str) -> None:
    """Loss, correct tokens and every gradient are those of each record alone, as transformers computes it."""
    plain, ragged = pair(family, kind)
    batch = records()
    alone = [supervised_loss(plain, collate([record], 0)) for record in batch]
    torch.autograd.backward([one.loss_sum for one in alone])
    together = supervised_loss(ragged, concatenate(batch))
    torch.autograd.backward(together.loss_sum)
    expected = sum(float(one.loss_sum.detach()) for one in alone)
    assert float(together.loss_sum.detach()) == pytest.approx(expected, rel=1e-6)
    assert int(together.correct) == sum(int(one.correct) for one in alone)
    assert together.supervised == sum(one.supervised for one in alone)
    assert_same_gradients(gradients(plain), gradients(ragged))


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_row_equals_padded_batch(family: str) -> None:
    """The padded batch is the reference: same sums, same gradients."""
    plain, ragged = pair(family, "all")
    padded, row = (supervised_loss(plain, collate(records(), 0)), supervised_loss(ragged, concatenate(records())))
    torch.autograd.backward([padded.loss_sum, row.loss_sum])
    assert float(row.loss_sum.detach()) == pytest.approx(float(padded.loss_sum.detach()), rel=1e-6)
    assert_same_gradients(gradients(plain), gradients(ragged))


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_record_changed_leaves_every_other_as_it_was(family: str) -> None:
    """Other tokens in one record change no hidden state of its neighbours, not in one bit."""
    _, model = pair(family, "all")
    base: Any = model.get_base_model()
    before = records()
    changed = 3
    ids = tuple((token + 1) % VOCABULARY for token in before[changed].input_ids)
    after = [*before[:changed], replace(before[changed], input_ids=ids), *before[changed + 1 :]]
    states = []
    for batch in (concatenate(before), concatenate(after)):
        with torch.no_grad():
            output = base.base_model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=torch.zeros(1, 1, 1, 1),
                use_cache=False,
                record_lengths=batch.record_lengths,
            )
        states.append(torch.split(output.last_hidden_state[0], batch.record_lengths))
    for index, (one, other) in enumerate(zip(*states, strict=True)):
        assert torch.equal(one, other) == (index != changed)


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_model_computes_padded_batches_and_generates_as_before(family: str) -> None:
    """The layout changes what a row of records is, and nothing else: padded right or left, with a cache or not."""
    plain, ragged = pair(family, "all")
    batch = collate(records(), 0)
    with torch.no_grad():
        for mask in (batch.attention_mask, batch.attention_mask.flip(1)):
            one, other = (m(input_ids=batch.input_ids, attention_mask=mask).logits for m in (plain, ragged))
            assert torch.equal(one[mask.bool()], other[mask.bool()])
    prompt = {"input_ids": batch.input_ids[:, :4], "attention_mask": torch.ones(len(batch.input_ids), 4)}
    asked = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    generated: list[Any] = [model.generate(**prompt, **asked) for model in (plain, ragged)]  # type: ignore[operator]
    assert torch.equal(generated[0], generated[1])


def test_ragged_training_lies_over_padded_training(bench: Bench, step_losses: Any) -> None:
    """Twenty steps, accumulation and partial windows included: losses and norms agree, and no position is padding."""
    curves = {}
    for layout in ("padded", "ragged"):
        model = bench.model()
        assert configure_batch_layout(model, layout).kind == layout
        job = bench.job(model, layout, 20, micro_batch_size=4, gradient_accumulation_steps=2)
        hook, state = step_losses(), TrainerState()
        run_training(replace(job, layout=layout), state, [hook])
        curves[layout] = (np.array(hook.losses), np.array(hook.norms), state)
    padded, ragged = curves["padded"], curves["ragged"]
    for one, other in zip(padded[:2], ragged[:2], strict=True):
        residual = (other - one) / one
        assert np.abs(residual).max() <= 1e-5
        assert abs(residual.mean()) <= 1e-6
    assert (ragged[2].trained_tokens, ragged[2].masked_tokens) == (padded[2].trained_tokens, padded[2].masked_tokens)
    assert ragged[2].padding_tokens == 0
    assert padded[2].padding_tokens > 0


def test_ragged_positions_that_depend_on_the_batch_are_padded_and_say_why() -> None:
    """Frequencies that follow the longest record of a batch would tie records together."""
    config = LlamaConfig(**_SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0})
    layout = configure_batch_layout(LlamaForCausalLM(config), "auto")
    assert layout.kind == "padded"
    assert "dynamic" in layout.reason


@pytest.mark.parametrize("layout", ["padded", "ragged"])
def test_tokens_per_micro_batch_changes_no_step(bench: Bench, step_losses: Any, layout: Any) -> None:
    """However a window is cut, by records or by tokens, each step is the same, and every token is counted once."""
    curves = []
    for values in ({"micro_batch_size": 8}, {"micro_batch_size": 8, "tokens_per_micro_batch": 64}):
        model = bench.model()
        configure_batch_layout(model, layout)
        job = bench.job(model, f"{len(curves)}", 20, **values)
        hook, state = step_losses(), TrainerState()
        run_training(replace(job, layout=layout), state, [hook])
        curves.append((np.array(hook.losses), state))
    residual = (curves[1][0] - curves[0][0]) / curves[0][0]
    assert np.abs(residual).max() <= 1e-5
    assert abs(residual.mean()) <= 1e-6
    whole, cut = curves[0][1], curves[1][1]
    assert (whole.trained_tokens, whole.masked_tokens) == (cut.trained_tokens, cut.masked_tokens)
    assert cut.padding_tokens <= whole.padding_tokens


def test_padded_windows_put_records_of_like_length_together(bench: Bench, step_losses: Any) -> None:
    """Within one window only: less padding than in the order of the data, the same tokens."""
    model = bench.model()
    records = bench.records(8)
    # Short and long by turns: in this order, micro-batches of two would be nearly half padding.
    ordered = sorted(records, key=lambda record: len(record.input_ids))
    job = bench.job(model, "like", 1, micro_batch_size=2, gradient_accumulation_steps=4, records=records)
    state = TrainerState()
    run_training(job, state, [step_losses()])
    lengths = [len(record.input_ids) for record in ordered]
    assert state.padding_tokens == sum(b - a for a, b in zip(lengths[::2], lengths[1::2], strict=True))


def test_layout_of_an_unknown_family_is_padded_and_ragged_is_refused() -> None:
    """What is not proven is not done: the line says why, and a wish that cannot be met is an error."""
    config = GPTNeoXConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = GPTNeoXForCausalLM(config)
    layout = configure_batch_layout(model, "auto")
    assert layout.kind == "padded"
    assert "gpt_neox" in layout.line()
    with pytest.raises(ModelError, match="cannot take ragged batches") as caught:
        configure_batch_layout(model, "ragged")
    assert "gpt_neox" in str(caught.value.why)


def test_ragged_attention_that_would_ignore_what_it_is_given_stops() -> None:
    """A soft cap, sinks or a bias of positions that came with a new version must not be left out in silence."""
    state = torch.zeros(1, 2, 3, 4)
    for name in ("softcap", "s_aux", "position_bias"):
        with pytest.raises(ModelError, match=name):
            record_attention(nn.Module(), state, state, state, None, record_lengths=(3,), **{name: 1.0})


def test_layout_of_eager_attention_is_padded() -> None:
    """Somebody who asked for eager attention gets it."""
    model = LlamaForCausalLM(LlamaConfig(**_SHAPE, attn_implementation="eager"))
    assert configure_batch_layout(model, "auto").kind == "padded"
    assert model.config._attn_implementation == "eager"


def test_layout_padded_leaves_the_model_as_transformers_made_it() -> None:
    """The reference computes with nothing of ours."""
    model = FAMILIES["llama"]()
    before = [type(module) for module in model.modules()]
    assert configure_batch_layout(model, "padded").kind == "padded"
    assert [type(module) for module in model.modules()] == before
    assert model.config._attn_implementation == "sdpa"


def test_ragged_float16_autocast_takes_the_logits_and_agrees_with_the_padded_batch() -> None:
    """Under float16 the loss scale must reach every gradient, so the head is not fused."""
    plain, ragged = pair("llama", "all")
    sums = []
    for model, batch in ((plain, collate(records(), 0)), (ragged, concatenate(records()))):
        with torch.autocast("cpu", torch.float16):
            scored = supervised_loss(model, batch)
        torch.autograd.backward(scored.loss_sum)
        assert "HeadLoss" not in type(scored.loss_sum.grad_fn).__name__
        sums.append(float(scored.loss_sum.detach()))
    assert sums[1] == pytest.approx(sums[0], rel=1e-3)
