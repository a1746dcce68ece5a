"""The list of all keys."""

from __future__ import annotations

import pytest

from codex_ml.config.messages import describe_schema, section_names, valid_keys
from codex_ml.config.schema.root import EvaluateConfig, TrainConfig


def test_describe_schema_every_key_has_words_and_a_type():
    """Each key says what it does, as a sentence, and what may stand there."""
    for field in describe_schema():
        assert field.description.endswith("."), field.key
        assert field.type, field.key
    types = {field.key: field.type for field in describe_schema()}
    assert types["training.max_steps"] == "integer or null"
    assert types["adapter.kind"] == "lora | none"
    assert types["adapter.target_modules"] == "all-linear or list of text"
    assert types["data.split.ratios"] == "list of 3 of number"
    assert types["data.columns"] == "mapping of text to text"
    assert types["run.resume_from"] == "latest or path or null"
    assert types["offline"] == "true or false"


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("data.split", ["ratios", "seed", "group_by", "exact_sizes"]),
        ("nothing", []),
        ("run.name", []),
        ("run.name.x", []),
    ],
)
def test_valid_keys_of_a_section_are_its_names(section, keys):
    """Sections below sections have keys; values and unknown names have none."""
    assert valid_keys(section) == keys


def test_section_names_of_evaluate_lack_training():
    """Each command has its own sections."""
    assert set(section_names(TrainConfig)) - set(section_names(EvaluateConfig)) == {
        "adapter",
        "training",
        "generation",
        "serve",
    }
