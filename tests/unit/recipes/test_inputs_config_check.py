"""A configuration that holds a secret is refused by key and rule; what only looks odd is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_evaluate, validate_train
from codex_ml.errors import ConfigError
from codex_ml.recipes.inputs import refuse_unsafe_values

# Made here, so that they stand in no file of the repository.
TOKEN = "gh" + "p_" + "a1B2" * 9
MAIL = "jane" + "@" + "bank.example.com"


def config(directory: Path, *overrides: str) -> TrainConfig:
    """Return a validated configuration whose paths lie in a directory."""
    values = ["model.path=base", "data.path=notes.jsonl", *overrides]
    return validate_train(compose("train", "default", None, values, working_directory=directory, environment={}))


@pytest.mark.parametrize(
    ("override", "key", "rule"),
    [
        (f"tracking.experiment={TOKEN}", "tracking.experiment", "github_token"),
        (f"tracking.experiment='for {MAIL}'", "tracking.experiment", "email"),
        (f"data.path=in/{TOKEN}/notes.jsonl", "data.path", "github_token"),
        (f"data.columns={{prompt: {TOKEN}}}", "data.columns.prompt", "github_token"),
        (f"adapter.target_modules=[q_proj,{TOKEN}]", "adapter.target_modules[1]", "github_token"),
    ],
)
def test_refuse_unsafe_values_secret_is_named_by_key_and_rule(tmp_path: Path, override: str, key: str, rule: str):
    """Wherever the value stands: a text, a path, a list, a mapping."""
    with pytest.raises(ConfigError) as refused:
        refuse_unsafe_values(config(tmp_path, override))
    (problem,) = refused.value.problems
    assert problem.key == key
    assert f"rule {rule}" in problem.what
    assert TOKEN not in refused.value.block()
    assert MAIL not in refused.value.block()


def test_refuse_unsafe_values_bypassed_filters_do_not_bypass_the_configuration(tmp_path: Path):
    """The reason of a bypass goes into every record of the run, so it may hold no secret either."""
    with pytest.raises(ConfigError) as refused:
        refuse_unsafe_values(config(tmp_path, "safety.enabled=false", f"safety.bypass_reason='asked by {MAIL}'"))
    assert [problem.key for problem in refused.value.problems] == ["safety.bypass_reason"]


def test_refuse_unsafe_values_all_problems_at_once(tmp_path: Path):
    """Two keys, one error."""
    with pytest.raises(ConfigError) as refused:
        refuse_unsafe_values(config(tmp_path, f"tracking.experiment={TOKEN}", f"data.path={TOKEN}.jsonl"))
    assert {problem.key for problem in refused.value.problems} == {"tracking.experiment", "data.path"}


@pytest.mark.parametrize("overrides", [[], ["data.path='internal use only/notes.jsonl'"]], ids=["plain", "marking"])
def test_refuse_unsafe_values_home_named_after_its_owner_passes(tmp_path: Path, overrides: list[str]):
    """Paths are written relative to the run, so what lies above it gives nothing away; nor does a marking in a name."""
    home = tmp_path / MAIL
    home.mkdir()
    refuse_unsafe_values(config(home, *overrides))
    values = ["model.path=base", "data.path=notes.jsonl", *overrides]
    composed = compose("evaluate", "default", None, values, working_directory=home, environment={})
    refuse_unsafe_values(validate_evaluate(composed))


def test_refuse_unsafe_values_policy_of_ones_own_is_the_one_that_judges(tmp_path: Path):
    """The run's policy decides; where it knows no such rule, the value passes."""
    rule: dict[str, Any] = {
        "id": "customer",
        "kind": "regex",
        "description": "customer number",
        "patterns": ["K[0-9]{6}"],
    }
    (tmp_path / "own.yaml").write_text(f"version: 1\nrules: [{rule}]\n", encoding="utf-8")
    refuse_unsafe_values(config(tmp_path, "safety.policy=own.yaml", f"tracking.experiment={TOKEN}"))
    with pytest.raises(ConfigError, match="1 problem"):
        refuse_unsafe_values(config(tmp_path, "safety.policy=own.yaml", "tracking.experiment=K123456"))
