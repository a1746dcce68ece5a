"""Models and tokenizers are loaded from local files, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from codex_ml.config.schema.model import ModelSection
from codex_ml.errors import ModelError, UserError
from codex_ml.models.registry import (
    load_base_model,
    load_model_directory,
    load_tokenizer,
    load_tokenizer_directory,
    tokenizer_digest,
)

torch.set_num_threads(1)


def section(**values: object) -> ModelSection:
    """Return a model section on the CPU."""
    return ModelSection.model_validate({"device": "cpu", **values})


def copy_of(directory: Path, tmp_path: Path) -> Path:
    """Return a copy of a model that may be changed."""
    return Path(shutil.copytree(directory, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["tiny_llama_directory", "tiny_gpt2_directory"])
def test_load_base_model_directory_gives_exactly_the_saved_weights(
    name: str, request: pytest.FixtureRequest, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Every saved tensor is in the model; a tied head is no missing tensor."""
    directory: Path = request.getfixturevalue(name)
    base = load_base_model(section(path=str(directory)), tiny_tokenizer, seed=0)
    state = base.model.state_dict()
    for key, tensor in load_file(directory / "model.safetensors").items():
        assert torch.equal(state[key], tensor), key
    assert (base.device.value, base.dtype.value) == ("cpu", "float32")
    assert base.digest.startswith("sha256:")
    assert {parameter.device for parameter in base.model.parameters()} == {torch.device("cpu")}


def test_load_base_model_bfloat16_weights_are_bfloat16(
    tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The dtype that is reported is the dtype that is used."""
    base = load_base_model(section(path=str(tiny_llama_directory), dtype="bfloat16"), tiny_tokenizer, seed=0)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}
    assert base.dtype.value == "bfloat16"


def test_load_model_directory_missing_tensor_is_named(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """Nothing that is missing is filled with random numbers."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="are not those of its config") as caught:
        load_model_directory(directory, "float32", "model.path")
    assert "1 missing" in caught.value.why
    assert "model.layers.1.mlp.up_proj.weight" in caught.value.why


def test_load_model_directory_layers_beyond_config_are_an_error(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """A config that names fewer layers than there are weights would load half a model; that is refused."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(ModelError, match="are not those of its config") as caught:
        load_model_directory(directory, "float32", "model.path")
    assert "unknown to the config" in caught.value.why


def test_load_model_directory_other_shape_is_an_error(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """A config of another model is not made to fit."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(ModelError):
        load_model_directory(directory, "float32", "model.path")


@pytest.mark.parametrize("damage", ["truncated", "unknown architecture"])
def test_load_model_directory_damaged_is_a_model_error(damage: str, tiny_llama_directory: Path, tmp_path: Path) -> None:
    """Torn weights and an unknown architecture end in one clear error."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    if damage == "truncated":
        content = (directory / "model.safetensors").read_bytes()
        (directory / "model.safetensors").write_bytes(content[: len(content) // 2])
    else:
        (directory / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model_directory(directory, "float32", "model.path")


def test_load_base_model_tokenizer_with_too_many_ids_is_refused(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """An id beyond the embedding would read beyond it."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    tokenizer = load_tokenizer_directory(directory, "model.path")
    tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(ModelError, match="the tokenizer has ids up to"):
        load_base_model(section(path=str(directory)), tokenizer, seed=0)


def test_load_tokenizer_of_path_or_of_its_own_key(tiny_llama_directory: Path) -> None:
    """With a path the model brings it, with a preset the config names it."""
    ours = load_tokenizer(section(path=str(tiny_llama_directory)))
    named = load_tokenizer(section(preset="llama-tiny", tokenizer=str(tiny_llama_directory)))
    assert ours.get_vocab() == named.get_vocab()
    assert ours.pad_token_id != ours.eos_token_id


def test_load_tokenizer_directory_without_end_token_is_refused(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """A model that never sees an end does not learn to stop."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings.pop("eos_token", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="has no end-of-sequence token"):
        load_tokenizer_directory(directory, "model.path")


def test_load_tokenizer_directory_without_pad_token_uses_the_end_token(
    tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """Padding is masked by position, so any id will do."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings.pop("pad_token", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "special_tokens_map.json").unlink(missing_ok=True)
    tokenizer = load_tokenizer_directory(directory, "model.path")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_load_tokenizer_directory_damaged_is_a_model_error(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """A torn tokenizer ends in one clear error."""
    directory = copy_of(tiny_llama_directory, tmp_path)
    (directory / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ModelError, match=r"tokenizer in .* cannot be read"):
        load_tokenizer_directory(directory, "model.path")


def test_load_base_model_preset_same_seed_same_weights(
    tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Weights and digest are a function of the seed, whatever was drawn before."""
    wish = section(preset="llama-tiny", tokenizer=str(tiny_llama_directory))
    first = load_base_model(wish, tiny_tokenizer, seed=7)
    torch.rand(5)
    again = load_base_model(wish, tiny_tokenizer, seed=7)
    other = load_base_model(wish, tiny_tokenizer, seed=8)
    states = [base.model.state_dict() for base in (first, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert first.digest == again.digest != other.digest
    assert first.model.config.vocab_size == len(tiny_tokenizer)


def test_load_base_model_preset_is_float32_or_refused(
    tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A dtype that would not be used is not reported."""
    wish = section(preset="llama-tiny", tokenizer=str(tiny_llama_directory), dtype="bfloat16")
    with pytest.raises(ModelError, match=r"model.dtype: bfloat16"):
        load_base_model(wish, tiny_tokenizer, seed=0)
    base = load_base_model(wish.model_copy(update={"dtype": "auto"}), tiny_tokenizer, seed=0)
    assert base.dtype.value == "float32"
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}


def test_load_base_model_unknown_preset_lists_the_known(
    tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A misspelt preset is met with a suggestion."""
    with pytest.raises(UserError, match="unknown model preset") as caught:
        load_base_model(section(preset="llama-tini", tokenizer=str(tiny_llama_directory)), tiny_tokenizer, seed=0)
    assert "did you mean 'llama-tiny'?" in caught.value.fix


def test_tokenizer_digest_moved_directory_is_equal_and_changed_file_differs(
    tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The place does not count, a chat template does."""
    before = tokenizer_digest(tiny_tokenizer, tiny_llama_directory)
    directory = copy_of(tiny_llama_directory, tmp_path)
    assert tokenizer_digest(tiny_tokenizer, directory) == before
    (directory / "chat_template.jinja").write_text("other")
    assert tokenizer_digest(tiny_tokenizer, directory) != before
