"""References between values."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.config.validate import validate_train
from codex_ml.config.value_tree import Source, ValueTree, as_text, interpolate

SOURCE = Source("file.yaml", Path("/base"))


def tree_of(values: dict) -> ValueTree:
    """Return a tree of one layer."""
    tree = ValueTree()
    tree.merge(values, SOURCE)
    return tree


def test_interpolate_plain_references_take_values_with_their_type():
    """A whole reference keeps the type, one inside text becomes text, and references may follow each other."""
    tree = tree_of({"a": {"b": 3, "c": "${a.b}", "d": "x-${a.c}-y", "e": ["${a.d}", 1]}, "f": "${a.e}"})
    assert interpolate(tree) == []
    assert tree.values() == {"a": {"b": 3, "c": 3, "d": "x-3-y", "e": ["x-3-y", 1]}, "f": ["x-3-y", 1]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${oc.env:HOME}", "no plain reference"),
        ("${oc.decode:x}", "no plain reference"),
        ("x${oc.create:{}}", "no plain reference"),
        ("${.b}", "no plain reference"),
        ("${a.${b}}", "no plain reference"),
        ("${", "no plain reference"),
        ("${nothing.here}", "names no value"),
        ("${section}", "names a whole section (x)"),
        ("${key}", "in a circle"),
        (["${oc.env:HOME}"], "no plain reference"),
    ],
)
def test_interpolate_anything_else_is_refused_and_taken_out(value, words):
    """No resolver runs: not of the environment, not of code."""
    tree = tree_of({"key": value, "section": {"x": 1}, "b": "x"})
    problems = interpolate(tree)
    assert [problem.key for problem in problems] == ["key"]
    assert words in problems[0].what
    assert "key" not in tree.values()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(r"\${b}", "${b}"), (r"a\${", "a${"), (r"\\${b}", r"\x"), (r"\\\${b}-${b}", r"\${b}-x"), (r"\a${b}", r"\ax")],
)
def test_interpolate_escaped_opening_stands_for_itself(value, expected):
    """An odd number of backslashes before the opening makes it text; two stand for one."""
    tree = tree_of({"key": value, "b": "x"})
    assert interpolate(tree) == []
    assert tree.values()["key"] == expected


@given(st.text(alphabet=r"\${}ab.", max_size=12))
def test_as_text_any_text_comes_back_as_it_is(text):
    """Whatever a file is called, its name passes the references unharmed."""
    tree = tree_of({"key": as_text(text), "b": "x", "a": {"b": "y"}})
    assert interpolate(tree) == []
    assert tree.values()["key"] == text


def test_interpolate_path_of_another_key_keeps_that_key_s_place(from_tree, tree, tmp_path):
    """A path taken from another key resolves where that key was given, not where it is referred to."""
    (tree / "refer.yaml").write_text(
        "model: {path: '${data.path}'}\ndata: {path: d}\nrun: {output_dir: '${run.name}/out', name: n}\n",
        encoding="utf-8",
    )
    config = validate_train(from_tree("refer", "data.path=elsewhere"))
    assert config.model.path == config.data.path == tmp_path / "elsewhere"
    assert config.run.output_dir == tree / "n" / "out"
