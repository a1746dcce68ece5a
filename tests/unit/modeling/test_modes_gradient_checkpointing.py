"""Gradient checkpointing: the same numbers from less memory, or an error."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from codex_ml.errors import ModelError
from codex_ml.modeling.modes import enable_gradient_checkpointing
from codex_ml.peft.peft_adapter import apply_lora


def _kept_and_gradients(directory, enabled: bool, adapter: bool) -> tuple[int, dict[str, torch.Tensor], torch.Tensor]:
    """Return the bytes kept for the backward pass, every gradient, and the next random draw."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    model = apply_lora(base, r=4, dropout=0.3) if adapter else base
    if enabled:
        enable_gradient_checkpointing(base)
    model.train()
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    ids = torch.randint(6, 380, (3, 25), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.logsumexp(-1).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return kept, gradients, torch.rand(3)


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "all-weights"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gradient_checkpointing_on_gives_the_same_gradients_from_less(kind, adapter, request):
    """Bit for bit, dropout included, the random state afterwards too; and what is kept is less than half."""
    directory = request.getfixturevalue(f"tiny_{kind}_directory")
    kept_off, off, draw_off = _kept_and_gradients(directory, enabled=False, adapter=adapter)
    kept_on, on, draw_on = _kept_and_gradients(directory, enabled=True, adapter=adapter)
    assert off.keys() == on.keys()
    assert any(gradient.abs().sum() > 0 for gradient in on.values())
    for name, gradient in off.items():
        assert torch.equal(gradient, on[name]), name
    assert torch.equal(draw_off, draw_on)
    assert kept_on < kept_off / 2


def test_gradient_checkpointing_leaves_embeddings_without_gradient(tiny_llama_directory):
    """Frozen embeddings stay out of the graph: their backward pass would be paid for nothing."""
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True)
    apply_lora(base, r=4)
    enable_gradient_checkpointing(base)
    assert not base.get_input_embeddings()(torch.tensor([[7, 8]])).requires_grad


def test_gradient_checkpointing_evaluation_computes_once(tiny_llama_directory):
    """In evaluation mode nothing is computed twice and results are the same."""
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True).eval()
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        before = base(input_ids=ids).logits
        enable_gradient_checkpointing(base)
        assert torch.equal(before, base(input_ids=ids).logits)


def test_gradient_checkpointing_class_without_it_is_refused():
    """GPT-1 has layers that cannot be computed again."""
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelError, match="OpenAIGPTLMHeadModel does not support it") as caught:
        enable_gradient_checkpointing(model)
    assert "training.gradient_checkpointing=false" in caught.value.fix


def test_gradient_checkpointing_claimed_but_absent_is_refused():
    """A class that says that it can, and has no layer that does, would leave the option without effect."""

    class Claiming(LlamaForCausalLM):
        def _set_gradient_checkpointing(self, *_: object, **__: object) -> None:
            raise ValueError("is not compatible with gradient checkpointing")

    shape = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(ModelError, match="Claiming does not support it"):
        enable_gradient_checkpointing(Claiming(shape))
