"""Validation of a composed configuration: every problem at once, in words that help."""

from __future__ import annotations

import pytest

from codex_ml.config.compose import Composed
from codex_ml.config.migrations import Migrations, RenamedKey
from codex_ml.config.schema.root import EvaluateConfig
from codex_ml.config.validate import validate_evaluate, validate_section, validate_train
from codex_ml.errors import ConfigError

COMPLETE = {"model": {"path": "/m"}, "data": {"path": "/d.jsonl"}}


def composed(values: dict, **settings: object) -> Composed:
    """Return a composition of plain values."""
    return Composed("train", {**COMPLETE, **values}, {}, **settings)


def problems_of(call) -> dict[str, tuple[str, str]]:
    """Return key -> (what, fix) of every problem."""
    with pytest.raises(ConfigError) as raised:
        call()
    keys = [problem.key for problem in raised.value.problems]
    assert len(keys) == len(set(keys)), f"a key is reported twice: {keys}"
    return {problem.key: (problem.what, problem.fix) for problem in raised.value.problems}


def test_validate_train_many_problems_are_reported_together():
    """Wrong types, bounds, unknown keys and broken rules come out in one go, also rules beside wrong fields."""
    found = problems_of(
        lambda: validate_train(
            Composed(
                "train",
                {
                    "lr": 1,
                    "adapter": {"rank": 4, "r": "8", "kind": "lora"},
                    "training": {"epochs": 1, "max_steps": 2, "learning_rate": -1, "lerning_rate": 3},
                    "safety": {"enabled": False},
                    "model": {"preset": "llama-tiny", "device": "gpu"},
                    "eval": {"metrics": "bleu"},
                    "data": 3,
                },
                {},
            )
        )
    )
    assert set(found) == {
        "lr",
        "adapter.rank",
        "adapter.r",
        "training.epochs",
        "training.learning_rate",
        "training.lerning_rate",
        "safety.bypass_reason",
        "model.tokenizer",
        "model.device",
        "eval.metrics",
        "data",
        "adapter.kind",
    }


def test_validate_train_rule_that_reads_a_wrong_field_is_not_reported():
    """One mistake gives one message: a rule is not judged by a field that is itself wrong."""
    values = {"model": {"path": 3}, "training": {"epochs": 0, "max_steps": 2, "early_stopping_patience": 0}}
    assert set(problems_of(lambda: validate_train(composed(values)))) == {
        "model.path",
        "training.epochs",
        "training.early_stopping_patience",
    }


def test_validate_train_problems_of_composing_come_with_the_others(from_tree):
    """An override that cannot be read does not hide what else is wrong."""
    found = problems_of(lambda: validate_train(from_tree("whole", "a=b=c", "adapter.rank=1")))
    assert set(found) == {"a", "adapter.rank"}


@pytest.mark.parametrize(
    ("values", "key", "words"),
    [
        ({"training": {"max_steps": "1e3"}}, "training.max_steps", "training.max_steps=1000"),
        ({"training": {"max_steps": 1000.0}}, "training.max_steps", "training.max_steps=1000"),
        ({"training": {"learning_rate": "1e-4"}}, "training.learning_rate", "training.learning_rate=0.0001"),
        ({"safety": {"enabled": "no", "bypass_reason": "x"}}, "safety.enabled", "safety.enabled=false"),
        ({"training": {"schedule": "cosin"}}, "training.schedule", "did you mean 'cosine'?"),
        ({"eval": {"metrics": "bleu"}}, "eval.metrics", "eval.metrics=[bleu]"),
        ({"run": {"name": 7}}, "run.name", "'run.name=\"7\"'"),
        ({"training": {"max_steps": "nan"}}, "training.max_steps", "set training.max_steps to a whole number or null."),
        ({"training": {"max_steps": "many"}}, "training.max_steps", "or null. Number of optimizer steps"),
        ({"training": {"max_steps": 0}}, "training.max_steps", "to 1 or more. Number of optimizer steps"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate", "to a value above 0.0, such as 0.0002 (the "),
        ({"data": {"max_bad_share": 2}}, "data.max_bad_share", "set data.max_bad_share to 1.0 or less, such as 0.05"),
        ({"training": {"adam_beta1": 1.0}}, "training.adam_beta1", "set training.adam_beta1 to a value below 1.0"),
        ({"training": {"schedule": "x"}}, "training.schedule", "available: constant, cosine, linear"),
        ({"safety": {"enabled": 3}}, "safety.enabled", "set safety.enabled to true or false. "),
        ({"eval": {"metrics": []}}, "eval.metrics", "eval.metrics=[bleu,rouge_l"),
        ({"tracking": {"sinks": ["x"]}}, "tracking.sinks", "available: mlflow"),
        ({"eval": {"metrics": ["loss", "blue"]}}, "eval.metrics", "did you mean 'bleu'?"),
        ({"data": {"split": {"ratios": [1, 0]}}}, "data.split.ratios", "data.split.ratios=[0.8,0.1,0.1]"),
        ({"data": {"columns": 4}}, "data.columns", "'data.columns={NAME: VALUE}'"),
        (
            {"adapter": {"target_modules": 4}},
            "adapter.target_modules",
            "all-linear or a list: adapter.target_modules=[NAME]",
        ),
        ({"model": {"name": "a b"}}, "model.name", "choose another text. "),
        ({"adapter": 4}, "adapter", "adapter.KEY=VALUE"),
        ({"data": {"split": 4}}, "data.split", "ratios, seed, group_by, exact_sizes"),
        (
            {"adapter": {"rank": 4}},
            "adapter.rank",
            "did you mean adapter.r? valid keys of adapter: kind, task_type, r,",
        ),
        ({"zzzzz": 4}, "zzzzz", "valid keys at the top: schema_version, offline, run"),
        ({"data": {"split": {"ratio": 4}}}, "data.split.ratio", "did you mean data.split.ratios?"),
        ({"training.lr": 4}, "training.lr", "did you mean training.learning_rate?"),
        ({"training.epochs": 4}, "training.epochs", ""),
    ],
)
def test_validate_train_wrong_value_says_what_to_write(values, key, words):
    """Every message ends in something the user can type."""
    assert words in problems_of(lambda: validate_train(composed(values)))[key][1]


def test_validate_train_wrong_value_is_shown_shortened():
    """A value is quoted in the message, cut where it is long."""
    what, _ = problems_of(lambda: validate_train(composed({"run": {"name": "é" * 500}})))["run.name"]
    assert "ééé" in what
    assert len(what) < 200


def test_validate_train_renamed_key_names_the_new_one():
    """A key that an older version knew is refused with its new name, also below a renamed section."""
    migrations = Migrations(renamed=(RenamedKey("training.steps_max", "training.max_steps", 2),))
    found = problems_of(lambda: validate_train(composed({"training": {"steps_max": 4}}, migrations=migrations)))
    assert (
        found["training.steps_max"][1] == "renamed in version 2 to training.max_steps: write training.max_steps instead"
    )


def test_validate_evaluate_file_of_training_is_valid(from_tree):
    """One file serves both commands; the training sections are checked and left out."""
    config = validate_evaluate(from_tree("plain", command="evaluate"))
    assert isinstance(config, EvaluateConfig)
    found = problems_of(
        lambda: validate_evaluate(from_tree("plain", "eval.split=tests", "data.rato=1", command="evaluate"))
    )
    assert set(found) == {"eval.split", "data.rato"}


def test_validate_evaluate_fault_in_training_section_is_reported():
    """A training section that is wrong is wrong for the evaluation's file too."""
    values = Composed("evaluate", {**COMPLETE, "training": {"epochs": 0}, "adapter": {"rank": 1}}, {})
    assert set(problems_of(lambda: validate_evaluate(values))) == {"training.epochs", "adapter.rank"}


def test_validate_evaluate_override_without_effect_is_refused(from_tree):
    """An option that would do nothing is an error."""
    composed_ = from_tree("plain", "training.epochs=2", command="evaluate")
    assert "no effect on evaluate" in problems_of(lambda: validate_evaluate(composed_))["training.epochs"][0]


def test_validate_evaluate_environment_of_training_is_left_alone(from_tree):
    """CODEX_ML_OVERRIDES holds for every command of a shell; what only training reads is checked, not refused."""
    environment = {"CODEX_ML_OVERRIDES": '{"training": {"epochs": 2}, "adapter": {"r": 2}}'}
    assert isinstance(
        validate_evaluate(from_tree("plain", command="evaluate", environment=environment)), EvaluateConfig
    )
    wrong = {"CODEX_ML_OVERRIDES": '{"training": {"epochs": 0}}'}
    composed_ = from_tree("plain", command="evaluate", environment=wrong)
    assert set(problems_of(lambda: validate_evaluate(composed_))) == {"training.epochs"}


def test_validate_section_keys_outside_are_refused():
    """The file of one group holds that group only."""
    values = Composed("train", {"adapter": {"r": 0}, "run": {}}, {"adapter.r": "f", "run.name": "f"})
    assert set(problems_of(lambda: validate_section("adapter", values))) == {"adapter.r", "run"}
