"""What an unknown key probably meant."""

from __future__ import annotations

import pytest

from codex_ml.config.messages import ALIASES, describe_schema, section_names, suggest, unknown_key_fix
from codex_ml.config.schema.root import TrainConfig


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("rank", "adapter.r"),
        ("adapter.rank", "adapter.r"),
        ("adapter.lora_r", "adapter.r"),
        ("lora_alpha", "adapter.alpha"),
        ("lora_dropout", "adapter.dropout"),
        ("lr", "training.learning_rate"),
        ("training.LR", "training.learning_rate"),
        ("batch_size", "training.micro_batch_size"),
        ("training.batch_size", "training.micro_batch_size"),
        ("per_device_train_batch_size", "training.micro_batch_size"),
        ("grad_accum", "training.gradient_accumulation_steps"),
        ("gradient_accumulation", "training.gradient_accumulation_steps"),
        ("num_epochs", "training.epochs"),
        ("num_train_epochs", "training.epochs"),
        ("steps", "training.max_steps"),
        ("warmup", "training.warmup_steps"),
        ("scheduler", "training.schedule"),
        ("seq_len", "data.max_length_tokens"),
        ("max_length", "data.max_length_tokens"),
        ("max_seq_length", "data.max_length_tokens"),
        ("block_size", "data.max_length_tokens"),
        ("model_name_or_path", "model.path"),
        ("base_model", "model.path"),
        ("train_file", "data.train"),
        ("output", "run.output_dir"),
        ("trainning", "training"),
        ("lerning_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("run.learning_rate", "training.learning_rate"),
        ("data.trainn", "data.train"),
        ("eval.batchsize", "eval.batch_size"),
        ("data.split.ratioes", "data.split.ratios"),
        ("training.epochs", "training.epochs"),
        ("qqqqqq", None),
        ("run.qqqqqq", None),
    ],
)
def test_suggest_key_people_type_names_the_right_one(key, meant):
    """Names of other tools, other sections and misspellings lead to the key."""
    assert suggest(key, TrainConfig) == meant


def test_aliases_all_lead_to_keys_that_exist():
    """No alias points at a key that was renamed since, and none hides a key at the top."""
    known = {field.key for field in describe_schema()} | set(section_names())
    assert set(ALIASES.values()) <= known
    assert not set(ALIASES) & (set(section_names()) | {"offline", "schema_version"})


def test_unknown_key_fix_in_unknown_section_lists_the_nearest_known():
    """Below something unknown, the keys of the nearest known section are listed."""
    assert "valid keys of data: path" in unknown_key_fix("data.unknown.deep", TrainConfig)
    assert "valid keys at the top" in unknown_key_fix("qqqqqq.deep", TrainConfig)


def test_unknown_key_fix_dotted_name_in_a_file_says_to_nest_it():
    """A right key written with its dots as one name is told how to write it."""
    assert unknown_key_fix("training.epochs", TrainConfig).startswith("nest it: write training: {epochs: …}")
