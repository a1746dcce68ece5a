"""A LoRA adapter that is asked for is applied as asked, or there is an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, PreTrainedModel

from codex_ml.errors import AdapterError
from codex_ml.peft.peft_adapter import DEFAULT_CFG, TrainableShare, apply_lora, trainable_share
from error_checks import has_code

torch.set_num_threads(1)
IDS = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])


def load(directory: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a fresh model."""
    return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)


@pytest.fixture
def llama(tiny_llama_directory: Path) -> PreTrainedModel:
    """Return a fresh llama."""
    return load(tiny_llama_directory)


@pytest.fixture
def gpt2(tiny_gpt2_directory: Path) -> PreTrainedModel:
    """Return a fresh GPT-2."""
    return load(tiny_gpt2_directory)


def test_default_cfg_is_that_of_the_design_and_read_only() -> None:
    """The defaults are promised, and nobody can change them for the next caller."""
    assert dict(DEFAULT_CFG) == {
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": "all-linear",
    }
    with pytest.raises(TypeError):
        DEFAULT_CFG["r"] = 4  # type: ignore[index]


def test_apply_lora_without_settings_uses_the_defaults(llama: PreTrainedModel) -> None:
    """What is not given comes from DEFAULT_CFG, and all linear layers but the head are targeted."""
    adapted = apply_lora(llama)
    config = adapted.peft_config["default"]
    assert {key: getattr(config, key) for key in DEFAULT_CFG if key != "target_modules"} == {
        key: value for key, value in DEFAULT_CFG.items() if key != "target_modules"
    }
    targeted = {name.rpartition(".")[2] for name, module in adapted.named_modules() if isinstance(module, LoraLayer)}
    assert targeted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("cfg", "overrides"),
    [
        ({"r": 4}, {"r": 2}),
        ({"rank": 4}, {"r": 2}),
        ({"r": 4}, {"rank": 2}),
        (None, {"r": 2}),
        ({"r": 2}, {}),
    ],
)
def test_apply_lora_key_in_both_override_wins(
    llama: PreTrainedModel, cfg: dict[str, Any] | None, overrides: dict[str, Any]
) -> None:
    """The override wins under either name, and the key reaches peft once (twice would be a TypeError)."""
    before = dict(cfg) if cfg is not None else None
    assert apply_lora(llama, cfg, **overrides).peft_config["default"].r == 2
    assert cfg == before


def test_apply_lora_short_names_reach_peft(llama: PreTrainedModel) -> None:
    """The names of our config are those of the adapter section."""
    config = apply_lora(llama, {"alpha": 32, "dropout": 0.25}).peft_config["default"]
    assert (config.lora_alpha, config.lora_dropout) == (32, 0.25)


def test_apply_lora_one_setting_under_two_names_is_refused(llama: PreTrainedModel) -> None:
    """Two names for one thing in one mapping have no winner."""
    with pytest.raises(AdapterError, check=lambda error: has_code(error, "ADAPTER_DUPLICATE_KEY")):
        apply_lora(llama, {"alpha": 8, "lora_alpha": 16})


def test_apply_lora_unknown_key_is_refused_and_known_ones_listed(llama: PreTrainedModel) -> None:
    """Peft would be asked for nothing it does not know."""
    with pytest.raises(AdapterError, match="lora_rank") as caught:
        apply_lora(llama, {"r": 4}, lora_rank=8)
    assert "lora_alpha" in caught.value.fix
    assert not any(isinstance(module, LoraLayer) for module in llama.modules())


@pytest.mark.parametrize("task_type", ["SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"])
def test_apply_lora_task_type_override_is_what_the_adapter_says(llama: PreTrainedModel, task_type: str) -> None:
    """Another task type than the default is passed on, once."""
    adapted = apply_lora(llama, {"task_type": "CAUSAL_LM"}, task_type=task_type)
    assert adapted.peft_config["default"].task_type == task_type
    assert adapted(input_ids=IDS).logits.shape[:2] == IDS.shape


def test_apply_lora_unknown_task_type_is_refused(llama: PreTrainedModel) -> None:
    """A misspelt task is met with the known ones."""
    with pytest.raises(AdapterError, match=r"adapter.task_type: unknown task 'CAUSAL'") as caught:
        apply_lora(llama, task_type="CAUSAL")
    assert "CAUSAL_LM" in caught.value.fix


@pytest.mark.parametrize("targets", [["q_proj", "qproj"], ("q_proj", "qproj")])
def test_apply_lora_absent_target_among_present_ones_is_refused(llama: PreTrainedModel, targets: Any) -> None:
    """Peft is content when one of a list matches; we are not."""
    with pytest.raises(AdapterError, match=r"adapter.target_modules: qproj matches no module") as caught:
        apply_lora(llama, target_modules=targets)
    assert "q_proj" in caught.value.fix


def test_apply_lora_pattern_that_matches_nothing_is_refused(llama: PreTrainedModel) -> None:
    """A regular expression that matches no module is an error too."""
    with pytest.raises(AdapterError, check=lambda error: has_code(error, "ADAPTER_SETTINGS_REFUSED")):
        apply_lora(llama, target_modules=r".*\.no_such_module")


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ("q_proj", "v_proj")])
def test_apply_lora_listed_targets_are_exactly_those(llama: PreTrainedModel, targets: Any) -> None:
    """What is listed is adapted and nothing else; a validated config gives a tuple."""
    adapted = apply_lora(llama, target_modules=targets)
    names = {name.rpartition(".")[2] for name, module in adapted.named_modules() if isinstance(module, LoraLayer)}
    assert names == {"q_proj", "v_proj"}
    assert adapted.peft_config["default"].target_modules == {"q_proj", "v_proj"}


def test_apply_lora_target_that_cannot_carry_one_is_refused(llama: PreTrainedModel) -> None:
    """A container or a norm is named by peft's own message."""
    with pytest.raises(AdapterError, check=lambda error: has_code(error, "ADAPTER_SETTINGS_REFUSED")) as caught:
        apply_lora(llama, target_modules=["mlp"])
    assert caught.value.why


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_apply_lora_fresh_adapter_changes_no_logit(name: str, request: pytest.FixtureRequest) -> None:
    """The second matrix starts at zero."""
    model: PreTrainedModel = request.getfixturevalue(name)
    with torch.no_grad():
        before = model.eval()(input_ids=IDS).logits
        after = apply_lora(model).eval()(input_ids=IDS).logits
    assert torch.allclose(before, after, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_apply_lora_training_step_leaves_base_bit_identical(name: str, request: pytest.FixtureRequest) -> None:
    """Only the adapter moves."""
    model: PreTrainedModel = request.getfixturevalue(name)
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    adapted = apply_lora(model)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    state = {key.replace(".base_layer", ""): tensor for key, tensor in adapted.base_model.model.state_dict().items()}
    assert all(torch.equal(state[key], tensor) for key, tensor in base.items())
    assert any(tensor.any() for key, tensor in state.items() if "lora_B" in key)


def test_apply_lora_transposed_layers_are_known_without_a_warning(gpt2: PreTrainedModel) -> None:
    """GPT-2's Conv1D keeps its weights transposed; peft is told and need not warn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = apply_lora(gpt2)
    assert not [item for item in caught if "fan_in_fan_out" in str(item.message)]
    assert adapted.peft_config["default"].fan_in_fan_out is True


def test_apply_lora_linear_layers_are_not_called_transposed(llama: PreTrainedModel) -> None:
    """The setting follows the model."""
    assert apply_lora(llama).peft_config["default"].fan_in_fan_out is False


def test_apply_lora_bfloat16_base_has_float32_adapter(tiny_llama_directory: Path) -> None:
    """Small updates would be rounded away in bfloat16."""
    adapted = apply_lora(load(tiny_llama_directory, torch.bfloat16))
    dtypes = {p.requires_grad: p.dtype for p in adapted.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert adapted(input_ids=IDS).logits.isfinite().all()


def test_trainable_share_counts_and_prints_both_numbers(llama: PreTrainedModel) -> None:
    """The share is what is printed at the start of a run."""
    total = sum(p.numel() for p in llama.parameters())
    share = trainable_share(apply_lora(llama, r=2))
    assert share.total == total + share.trainable
    # Rank times (inputs + outputs) of every adapted layer: q, o 48x48, k, v 48x24, gate, up, down 48x96; two layers.
    assert share.trainable == 2 * 2 * (2 * (48 + 48) + 2 * (48 + 24) + 3 * (48 + 96))
    assert str(TrainableShare(1_000, 40_000)) == "1,000 of 40,000 parameters (2.50 %)"


def test_apply_lora_alpha_doubled_doubles_the_update(tiny_llama_directory: Path) -> None:
    """The update is scaled by alpha / r."""
    deltas = []
    for alpha in (8, 16):
        torch.manual_seed(0)
        adapted = apply_lora(load(tiny_llama_directory), r=4, alpha=alpha, target_modules=["q_proj"])
        layer = next(module for module in adapted.modules() if isinstance(module, LoraLayer))
        torch.nn.init.ones_(layer.lora_B["default"].weight)
        deltas.append(layer.get_delta_weight("default"))
    assert torch.allclose(deltas[1], 2 * deltas[0])
