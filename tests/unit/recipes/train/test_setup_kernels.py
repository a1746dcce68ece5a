"""The trial of kernels before a run: what is computed, what it leaves behind, when there is none."""

from __future__ import annotations

import pytest
import torch

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.modeling.determinism import find_nondeterministic_ops
from codex_ml.peft.peft_adapter import apply_lora
from codex_ml.recipes.train.setup import compute_once, prepare_process


class _Scatter(torch.nn.Module):
    """A causal model of one layer that needs a kernel without a deterministic form, and remembers its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 20)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, **_: object) -> object:
        self.shapes.append(tuple(input_ids.shape))
        logits = self.embedding(input_ids)
        torch.zeros(4).put_(torch.tensor([1]), torch.tensor([2.0]))
        return type("Output", (), {"logits": logits})()


def _record(length: int) -> TokenizedRecord:
    return TokenizedRecord(f"r:{length}", tuple(range(length)), (True,) * length, 1, "", None)


def test_compute_once_runs_longest_alone_and_with_shortest_and_finds_what_refuses():
    """Both shapes that decide a kernel are tried, with and without padding; gradients and mode are as before."""
    model = _Scatter().eval()
    found = find_nondeterministic_ops(lambda: compute_once(model, [_record(4), _record(9), _record(2)]))
    assert found == ("put_",)
    assert model.shapes == [(1, 9), (2, 9)]
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_compute_once_of_a_llama_with_adapter_refuses_nothing_on_the_cpu(tiny_llama_directory):
    """All kernels of the most common model have a deterministic form on the CPU."""
    from transformers import AutoModelForCausalLM

    model = apply_lora(AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True), dropout=0.1)
    assert find_nondeterministic_ops(lambda: compute_once(model, [_record(4), _record(9)])) == ()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_compute_once_of_a_llama_on_a_gpu_twice_gives_the_same_gradients(tiny_llama_directory):
    """With deterministic kernels, two backward passes on a GPU agree in every bit, and nothing refuses."""
    from transformers import AutoModelForCausalLM

    from codex_ml.data.batches import collate
    from codex_ml.modeling.determinism import Kernels, fixed_kernels
    from codex_ml.modeling.forward import supervised_loss

    base = AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True, dtype=torch.bfloat16)
    model = apply_lora(base).to("cuda")
    records = [_record(length) for length in (19, 7, 12, 19)]
    assert find_nondeterministic_ops(lambda: compute_once(model, records)) == ()
    found = []
    with fixed_kernels(Kernels("cuda:0", "sdpa", deterministic=True, refused=())):
        for _ in range(2):
            model.zero_grad()
            supervised_loss(model, collate(records, 0).to("cuda")).loss_sum.backward()
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(found[0], found[1])


def test_prepare_process_sets_the_workspace_only_when_asked():
    """A run that does not ask for it leaves the environment alone."""
    environment: dict[str, str] = {}
    values = {"model": {"path": "/m"}, "data": {"path": "/d"}}
    prepare_process(TrainConfig.model_validate(values), environment)
    assert environment == {}
    prepare_process(TrainConfig.model_validate({**values, "training": {"deterministic": True}}), environment)
    assert environment == {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
