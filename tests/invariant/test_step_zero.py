"""An adapter that was not trained yet changes nothing: what is learnt starts from the base itself."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

Bench = Any  # the class lives in conftest.py, which cannot be imported by name


def test_adapter_of_step_zero_gives_the_logits_of_the_base(bench: Bench) -> None:
    """Every logit is equal, bit for bit; once the second matrix is not zero, none of them need be."""
    base = AutoModelForCausalLM.from_pretrained(bench.base, local_files_only=True).eval()
    model = bench.model(dropout=0.5, seed=3).eval()
    ids = torch.randint(6, 380, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = base(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, expected)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)
        assert not torch.allclose(model(input_ids=ids).logits, expected)
