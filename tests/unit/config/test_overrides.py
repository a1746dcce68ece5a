"""Overrides in Hydra's grammar, laid over the values."""

from __future__ import annotations

import shlex

import pytest

from codex_ml.config.compose import SCHEMA_DEFAULT
from codex_ml.config.overrides import quoted_example
from codex_ml.config.validate import validate_train


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("adapter.r=16", 16),
        ("+adapter.r=16", 16),
        ("++adapter.r=16", 16),
        ("adapter={r:16,alpha:4}", 16),
    ],
)
def test_override_every_prefix_sets_the_value(from_tree, override, value):
    """The schema decides which keys exist, so +, ++ and nothing mean the same."""
    assert validate_train(from_tree("whole", override)).adapter.r == value


def test_override_given_twice_the_last_wins(from_tree):
    """Overrides apply from left to right."""
    assert validate_train(from_tree("whole", "adapter.r=1", "adapter.r=2")).adapter.r == 2


def test_override_types_are_those_of_the_grammar(from_tree):
    """Lists, mappings, null, truth values and numbers with exponents arrive as such."""
    config = validate_train(
        from_tree(
            "whole",
            "adapter.target_modules=[q_proj,v_proj]",
            "data.columns={prompt:question,completion:answer}",
            "training.max_grad_norm=null",
            "data.split.exact_sizes=true",
            "training.learning_rate=1e-3",
            "data.split.group_by='a, b (c) = d'",
        )
    )
    assert config.adapter.target_modules == ("q_proj", "v_proj")
    assert config.data.columns == {"prompt": "question", "completion": "answer"}
    assert config.training.max_grad_norm is None
    assert config.data.split.exact_sizes is True
    assert config.training.learning_rate == 1e-3
    assert config.data.split.group_by == "a, b (c) = d"


def test_override_mapping_merges_with_what_is_there(from_tree):
    """A mapping adds to the section instead of replacing it, as in Hydra."""
    composed = from_tree("plain", "adapter={alpha:3}")
    assert composed.values["adapter"] == {"r": 4, "alpha": 3}
    assert composed.origins["adapter.r"] == "mine/plain.yaml"


def test_override_deletion_leaves_the_schema_default(from_tree):
    """~KEY takes the file's value out; ~KEY=VALUE only when that is the value."""
    composed = from_tree("plain", "~adapter.r")
    assert validate_train(composed).adapter.r == 8
    assert composed.origins["adapter.r"] == SCHEMA_DEFAULT
    assert validate_train(from_tree("plain", "~adapter.r=4")).adapter.r == 8
    assert "its value is 4, not 5" in from_tree("plain", "~adapter.r=5").problems[0].what
    assert "nothing to remove" in from_tree("plain", "~adapter.zzz").problems[0].what


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("data.path=a=b", "data.path", """'data.path="a=b"'"""),
        ("data.path=données.jsonl", "data.path", """'data.path="données.jsonl"'"""),
        ("data.path=a (1).jsonl", "data.path", """'data.path="a (1).jsonl"'"""),
        ("data.path=a,b", "data.path", "data.path=[a,b]"),
        ("training.epochs=range(1,3)", "training.epochs", "several values"),
        ("adapter.r", "adapter.r", "adapter.r=VALUE"),
        ("", "override", "KEY=VALUE"),
        ("=3", "override", "quote"),
    ],
)
def test_override_outside_the_grammar_says_how_to_quote(from_tree, override, key, words):
    """An override that cannot be read is named, and shown as it must be typed."""
    (problem,) = from_tree("whole", override).problems
    assert problem.key == key
    assert words in f"{problem.what} {problem.fix}"


@pytest.mark.parametrize(
    "value",
    ["a (1).jsonl", "données.jsonl", "a=b", "a,b", "~x", 'say "x"', "back\\slash", "x y", "it's", '\\"', "end\\"],
)
def test_quoted_example_typed_as_shown_gives_the_value(from_tree, value):
    """The advice is right: the quoted form arrives as the very text."""
    (typed,) = shlex.split(quoted_example(f"data.split.group_by={value}"))
    assert validate_train(from_tree("whole", typed)).data.split.group_by == value
