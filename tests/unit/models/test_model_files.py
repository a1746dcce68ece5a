"""What a checkpoint holds of model and tokenizer loads again and names no place of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from codex_ml.models.model_files import write_generation_config, write_model, write_tokenizer
from codex_ml.models.registry import load_model_directory


def test_write_model_tied_weights_round_trip(
    tiny_gpt2_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Weights written and read again are bit-identical; no file names where they came from."""
    model = load_model_directory(tiny_gpt2_directory, "float32", "model.path")
    settings = model.generation_config
    write_model(model, tmp_path)
    # Training continues with this model.
    assert model.generation_config is settings
    write_tokenizer(tiny_tokenizer, tmp_path)
    again = load_model_directory(tmp_path, "float32", "model.path").state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())
    assert (tmp_path / "chat_template.jinja").is_file()
    for file in tmp_path.iterdir():
        assert str(tiny_gpt2_directory).encode() not in file.read_bytes(), file.name


def test_write_generation_config_ends_where_training_ended(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Generation stops at the token that was supervised as the end."""
    end = tiny_tokenizer.eos_token_id
    assert isinstance(end, int)
    write_generation_config(tiny_tokenizer, {end + 1, end}, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [end, end + 1]
    write_generation_config(tiny_tokenizer, {end}, tmp_path)
    values = json.loads((tmp_path / "generation_config.json").read_text())
    assert values["eos_token_id"] == tiny_tokenizer.eos_token_id
    assert values["pad_token_id"] == tiny_tokenizer.pad_token_id
