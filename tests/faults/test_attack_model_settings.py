"""Untrusted settings and weights that pass the checks of transformers and fail later: refused when loaded."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.config.schema.model import ModelSection
from codex_ml.errors import CheckpointError, ModelError
from codex_ml.models.directory_guard import is_computed
from codex_ml.models.registry import build_meta_model, load_base_model, load_tokenizer, load_tokenizer_directory
from codex_ml.peft.adapter_files import read_adapter_tensors

pytestmark = pytest.mark.timeout(300)
DELETED = object()


@pytest.fixture
def model(tiny_llama_directory: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid model that the test may change."""
    return Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))


def _set(file: Path, *place: str | int, value: Any) -> None:
    content = json.loads(file.read_text("utf-8"))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if value is DELETED:
        inner.pop(place[-1], None)
    else:
        inner[place[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def _section(model: Path) -> ModelSection:
    return ModelSection.model_validate({"device": "cpu", "path": str(model)})


def _load(model: Path) -> None:
    section = _section(model)
    load_base_model(section, load_tokenizer(section), seed=0)


def _refused(model: Path, load: Callable[[Path], object] = _load) -> str:
    with pytest.raises(ModelError) as caught:
        load(model)
    return caught.value.block()


def _declare(file: Path, dtype: str, part: str) -> None:
    """Change the dtype of some tensors in the header of a safetensors file; the weight bytes stay the same."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if part in name:
            entry["dtype"] = dtype
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


def _change_weights(file: Path, **tensors: torch.Tensor) -> None:
    save_file({**load_file(file), **tensors}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["I32", "U32"])
@pytest.mark.parametrize("part", ["layers.1.self_attn.q_proj.weight", "model.norm.weight", "embed_tokens.weight"])
def test_weight_declared_as_whole_numbers_is_refused_by_name(model, dtype, part):
    """Its bits would be read as integers, and the output of the model would be wrong."""
    _declare(model / "model.safetensors", dtype, part)
    message = _refused(model)
    assert f"{part} in the weights of" in message
    assert f"is stored as {dtype}" in message


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_weight_of_another_kind_of_number_is_refused_by_name(model, dtype):
    """Weights are stored as floating-point numbers of at least 16 bits."""
    name = "model.norm.weight"
    weights = load_file(model / "model.safetensors")[name]
    _change_weights(model / "model.safetensors", **{name: weights.to(dtype)})
    assert f"{name} in the weights of" in _refused(model)


def test_causal_mask_among_the_weights_is_accepted(tiny_gpt2_directory, tmp_path):
    """Older versions of transformers saved the causal mask."""
    model = Path(shutil.copytree(tiny_gpt2_directory, tmp_path / "model"))
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    _change_weights(model / "model.safetensors", **{"transformer.h.0.attn.bias": mask})
    _load(model)


def test_weight_whose_name_ends_like_that_of_a_mask_is_refused(tiny_gpt2_directory, tmp_path):
    """`c_attn.bias` is a weight; only `attn.bias` as a whole part of the name is a mask."""
    model = Path(shutil.copytree(tiny_gpt2_directory, tmp_path / "model"))
    _declare(model / "model.safetensors", "I32", "h.0.attn.c_attn.bias")
    message = _refused(model)
    assert "h.0.attn.c_attn.bias in the weights of" in message
    assert "is stored as I32" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer.h.0.attn.bias", True),
        ("attn.bias", True),
        ("gpt_neox.layers.0.attention.masked_bias", True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", True),
        ("embeddings.position_ids", True),
        ("h.0.attn.c_attn.bias", False),
        ("h.0.self_attention.bias", False),
        ("old_position_ids", False),
    ],
)
def test_is_computed_compares_whole_parts_of_the_name(name, expected):
    """Any other tensor that is missing or stored in another format is an error."""
    assert is_computed(name) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weight_that_is_not_finite_is_refused_by_name(model, value):
    """One NaN or infinity spoils every logit."""
    name = "model.layers.0.mlp.up_proj.weight"
    weights = load_file(model / "model.safetensors")[name]
    weights[3, 4] = value
    _change_weights(model / "model.safetensors", **{name: weights})
    message = _refused(model)
    assert name in message
    assert "not finite" in message


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_adapter_weight_that_is_not_floating_point_is_refused_by_name(tmp_path, dtype):
    """The rule for base models also applies to adapters."""
    tensors = {"a.lora_A.weight": torch.ones(4, 4).to(dtype), "b.lora_A.weight": torch.ones(4, 4)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.lora_A\.weight .* is stored as"):
        read_adapter_tensors(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("return_dict", False),
        ("attention_dropout", 2),
        ("attention_dropout", -1),
        ("output_hidden_states", "x"),
        ("output_attentions", -0.5),
        ("num_attention_heads", "x"),
        ("sliding_window", ["x"]),
        ("hidden_act", "no such function"),
    ],
)
def test_config_that_no_pass_can_follow_is_refused_and_named(model, key, value):
    """Otherwise torch fails in the first step, or the first checkpoint cannot be written."""
    _set(model / "config.json", key, value=value)
    message = _refused(model)
    assert "config.json" in message or "the model in" in message
    assert "tokenizer" not in message


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", "x"), ("rope_parameters", 7)])
def test_fault_of_the_config_is_not_blamed_on_the_tokenizer(model, key, value):
    """AutoTokenizer also reads config.json, and fails on it first."""
    _set(model / "config.json", key, value=value)
    message = _refused(model, lambda path: load_tokenizer_directory(path, "model.path"))
    assert "the model in" in message
    assert "the tokenizer in" not in message


def test_fault_of_the_tokenizer_is_attributed_to_the_tokenizer(model):
    """The config in the same directory is valid."""
    _set(model / "tokenizer.json", "model", value={"type": "no such model"})
    assert "the tokenizer in" in _refused(model)


@pytest.mark.parametrize("load", [_load, lambda path: build_meta_model(_section(path), load_tokenizer(_section(path)))])
def test_post_processor_with_ids_beyond_the_vocabulary_is_refused(model, load):
    """They are in no vocabulary but are added to every text; a dry run reports the same error."""
    step = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
    single, pair = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    processor = {
        "type": "TemplateProcessing",
        "single": [step, single],
        "pair": [single, pair],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [99_999], "tokens": ["<|begin|>"]}},
    }
    _set(model / "tokenizer.json", "post_processor", value=processor)
    assert "ids up to 99999, the model only 384 embedding rows" in _refused(model, load)


def test_trial_of_a_model_leaves_random_state_and_mode_alone(model):
    """A resumed run must draw the same random numbers."""
    section = _section(model)
    tokenizer = load_tokenizer(section)
    _set(model / "config.json", "attention_dropout", value=0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    base = load_base_model(section, tokenizer, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert not base.model.training


# A sample of several hundred tried changes: each must give a working model or one of our errors.
_SAMPLE: list[tuple[str, tuple[str | int, ...], Any]] = [
    ("config.json", ("eos_token_id",), 1e30),
    ("config.json", ("pad_token_id",), -7),
    ("config.json", ("vocab_size",), 7),
    ("config.json", ("head_dim",), 1.5),
    ("config.json", ("rms_norm_eps",), "x"),
    ("config.json", ("rope_parameters",), {"rope_type": "yarn"}),
    ("config.json", ("torchscript",), True),
    ("config.json", ("is_encoder_decoder",), True),
    ("config.json", ("layer_types",), ["x"]),
    ("config.json", ("id2label",), -0.5),
    ("config.json", ("tie_word_embeddings",), {"a": 1}),
    ("config.json", ("text_config",), [1]),
    ("config.json", ("architectures",), DELETED),
    ("tokenizer_config.json", ("unk_token",), ""),
    ("tokenizer_config.json", ("chat_template",), 7),
    ("tokenizer_config.json", ("eos_token",), ["x"]),
    ("tokenizer_config.json", ("added_tokens_decoder",), {"99999": {"content": "x"}}),
    ("tokenizer_config.json", ("init_inputs",), [1]),
    ("tokenizer_config.json", ("model_max_length",), -1),
    ("tokenizer_config.json", ("tokenizer_class",), 7),
    ("tokenizer.json", ("added_tokens", 0, "id"), 99_999),
    ("tokenizer.json", ("padding",), {"strategy": {"Fixed": 7}}),
    ("tokenizer.json", ("model", "merges"), [1]),
    ("tokenizer.json", ("decoder",), 7),
    ("generation_config.json", ("eos_token_id",), "x"),
    ("generation_config.json", ("compile_config",), [1]),
    ("generation_config.json", ("temperature",), -0.5),
]


@pytest.mark.parametrize(("file", "place", "value"), _SAMPLE)
def test_changed_setting_gives_a_model_or_one_error_of_ours(model, tmp_path, file, place, value):
    """A model that loads also runs and can be saved as a checkpoint."""
    from codex_ml.models.model_files import write_generation_config, write_model, write_tokenizer

    _set(model / file, *place, value=value)
    try:
        section = _section(model)
        tokenizer = load_tokenizer(section)
        base = load_base_model(section, tokenizer, seed=0)
    except ModelError:
        return
    base.model(input_ids=torch.tensor([tokenizer.encode("What is 1 plus 2?")]))
    (tmp_path / "checkpoint").mkdir()
    write_model(base.model, tmp_path / "checkpoint")
    write_tokenizer(tokenizer, tmp_path / "checkpoint")
    write_generation_config(tokenizer, {2}, tmp_path / "checkpoint")
