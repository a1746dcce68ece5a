"""An adapter on disk is plain PEFT, names no place, and is loaded whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from codex_ml.errors import CheckpointError
from codex_ml.peft.adapter_files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_adapter,
    read_adapter_tensors,
    restore_adapter,
    temporary_adapter,
    write_adapter,
)
from codex_ml.peft.peft_adapter import apply_lora

torch.set_num_threads(1)
IDS = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])
BOTH = pytest.mark.parametrize("base_name", ["tiny_llama_directory", "tiny_gpt2_directory"])


def load(directory: Path) -> PreTrainedModel:
    """Return a fresh base model."""
    return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return logits in evaluation mode."""
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(base: PreTrainedModel, **settings: object) -> PeftModel:
    """Return an adapter that took two large optimizer steps."""
    torch.manual_seed(1)
    adapted = apply_lora(base, **settings).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        adapted(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted


@pytest.fixture(scope="session")
def saved(tiny_llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """Return a directory with a trained llama adapter, and its logits; treat as read-only."""
    directory = tmp_path_factory.mktemp("adapter")
    model = trained(load(tiny_llama_directory))
    write_adapter(model, directory)
    return directory, logits(model)


def damaged(directory: Path, copy: Path, name: str, value: torch.Tensor) -> Path:
    """Return a copy of an adapter with one tensor changed or added."""
    copy.mkdir()
    (copy / CONFIG_NAME).write_bytes((directory / CONFIG_NAME).read_bytes())
    save_file({**load_file(directory / WEIGHTS_NAME), name: value}, copy / WEIGHTS_NAME)
    return copy


@BOTH
def test_write_adapter_moved_directory_loads_with_plain_peft(
    base_name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Any PEFT user can load it from anywhere and gets the same logits."""
    base_directory: Path = request.getfixturevalue(base_name)
    model = trained(load(base_directory))
    before = logits(load(base_directory))
    (tmp_path / "here").mkdir()
    write_adapter(model, tmp_path / "here")
    moved = (tmp_path / "here").rename(tmp_path / "moved elsewhere")
    plain = PeftModel.from_pretrained(load(base_directory), moved)
    assert torch.allclose(logits(plain), logits(model), atol=1e-6)
    assert not torch.allclose(logits(plain), before, atol=1e-2)
    assert sorted(file.name for file in moved.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_write_adapter_files_hold_adapter_only_and_no_path(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path
) -> None:
    """Only adapter tensors, no weight of the base, no place of this machine, ready for inference."""
    directory, _ = saved
    assert all(".lora_" in name for name in load_file(directory / WEIGHTS_NAME))
    settings = json.loads((directory / CONFIG_NAME).read_text("utf-8"))
    assert settings["base_model_name_or_path"] is None
    assert settings["inference_mode"] is True
    assert settings["task_type"] == "CAUSAL_LM"
    for file in directory.iterdir():
        content = file.read_bytes()
        assert str(tiny_llama_directory).encode() not in content
        assert str(Path.home()).encode() not in content


def test_write_adapter_twice_gives_the_same_bytes(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """Equal adapters are equal files: resume is proven by comparing them."""
    write_adapter(trained(load(tiny_llama_directory)), tmp_path)
    for file in saved[0].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@BOTH
def test_adapter_on_block_has_adapter_and_base_comes_back(
    base_name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Inside, the logits are those of training; afterwards the base is bit-identical and bare."""
    base_directory: Path = request.getfixturevalue(base_name)
    model = trained(load(base_directory), bias="all")
    write_adapter(model, tmp_path)
    base = load(base_directory)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    with temporary_adapter(base, tmp_path) as adapted:
        assert torch.allclose(logits(adapted), logits(model), atol=1e-6)
        assert not any(parameter.requires_grad for parameter in adapted.parameters())
    after = base.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(isinstance(module, LoraLayer) for module in base.modules())


def test_adapter_on_error_inside_base_comes_back(saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path) -> None:
    """A failing evaluation of one adapter does not spoil the next."""
    base = load(tiny_llama_directory)
    with pytest.raises(KeyError), temporary_adapter(base, saved[0]):
        raise KeyError
    assert torch.equal(logits(base), logits(load(tiny_llama_directory)))


def test_restore_adapter_into_fresh_adapter_gives_saved_logits(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path
) -> None:
    """Resuming starts from exactly the saved weights, still trainable."""
    model = apply_lora(load(tiny_llama_directory))
    restore_adapter(model, saved[0])
    assert torch.equal(logits(model), saved[1])
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_restore_adapter_other_rank_names_both_shapes(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path
) -> None:
    """An adapter of other settings is refused before a weight has changed."""
    model = apply_lora(load(tiny_llama_directory), r=4)
    with pytest.raises(CheckpointError, match="does not fit this model") as caught:
        restore_adapter(model, saved[0])
    assert "has shape [8, 96], the model needs [4, 96]" in caught.value.why


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_read_adapter_tensors_non_finite_is_refused(
    value: float, saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """A broken adapter is named and never put on."""
    name = next(iter(load_file(saved[0] / WEIGHTS_NAME)))
    shape = load_file(saved[0] / WEIGHTS_NAME)[name].shape
    directory = damaged(saved[0], tmp_path / "bad", name, torch.full(shape, value))
    with pytest.raises(CheckpointError, match="not finite") as caught:
        load_adapter(load(tiny_llama_directory), directory)
    assert name in caught.value.why


def test_load_adapter_other_base_names_shapes_and_leaves_base_bare(
    saved: tuple[Path, torch.Tensor],
) -> None:
    """An adapter of a wider model is refused with the first tensor and both shapes."""
    other = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    with pytest.raises(CheckpointError, match="does not fit this model") as caught:
        load_adapter(other, saved[0])
    assert "has shape [" in caught.value.why
    assert "the model needs [" in caught.value.why
    assert not any(isinstance(module, LoraLayer) for module in other.modules())


def test_load_adapter_other_architecture_is_a_checkpoint_error(
    saved: tuple[Path, torch.Tensor], tiny_gpt2_directory: Path
) -> None:
    """Its target modules are not there."""
    with pytest.raises(CheckpointError, match="does not fit this base model"):
        load_adapter(load(tiny_gpt2_directory), saved[0])


def test_load_adapter_unexpected_tensor_is_refused(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """A tensor that would be ignored in silence is an error."""
    directory = damaged(saved[0], tmp_path / "bad", "base_model.model.extra.lora_A.weight", torch.ones(1))
    with pytest.raises(CheckpointError) as caught:
        load_adapter(load(tiny_llama_directory), directory)
    assert caught.value.why == "1 tensors are on one side only, first base_model.model.extra.lora_A.weight"


@pytest.mark.parametrize("content", [None, b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_read_adapter_tensors_absent_or_torn_is_a_checkpoint_error(content: bytes | None, tmp_path: Path) -> None:
    """A missing, empty or torn file is one clear error."""
    if content is not None:
        (tmp_path / WEIGHTS_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"cannot read .*{WEIGHTS_NAME}"):
        read_adapter_tensors(tmp_path)


def test_load_adapter_config_that_asks_for_remote_code_runs_none(
    saved: tuple[Path, torch.Tensor], tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """Fields of an adapter folder switch nothing on and name no other base."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / WEIGHTS_NAME).write_bytes((saved[0] / WEIGHTS_NAME).read_bytes())
    settings = {**json.loads((saved[0] / CONFIG_NAME).read_text("utf-8")), "base_model_name_or_path": "somebody/model"}
    (directory / CONFIG_NAME).write_text(json.dumps(settings))
    assert torch.equal(logits(load_adapter(load(tiny_llama_directory), directory)), saved[1])
