"""Names, docstrings and places of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_test_names import misplaced, problems_in, problems_of_functions


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ('def test_load(): """Do."""', "say test_"),
        ('def test_Load_absent_fails(): """Do."""', "say test_"),
        ("def test_load_absent_fails(): pass", "in one line"),
        ('def test_a_b_c(): """Do."""\ndef test_a_b_c(): """Do."""', "hides"),
        ('class TestA:\n    def test_x(self): """Do."""', "say test_"),
    ],
)
def test_problems_of_functions_planted_fault_is_found(code: str, problem: str, tmp_path: Path) -> None:
    """A generic or doubled name and a missing docstring are found, inside a class too."""
    file = tmp_path / "test_a.py"
    file.write_text(code)
    found = problems_of_functions(file)
    assert len(found) == 1
    assert problem in found[0]


def test_problems_of_functions_helpers_are_left_alone(tmp_path: Path) -> None:
    """Only tests are judged."""
    file = tmp_path / "test_a.py"
    file.write_text('def helper(): pass\ndef test_load_absent_fails(): """Say so."""')
    assert problems_of_functions(file) == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a tree with one module of the package and one tool."""
    for name in ("src/codex_ml/data/readers/jsonl.py", "src/codex_ml/errors.py", "tools/lock.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "placed"),
    [
        ("data/readers/test_jsonl.py", True),
        ("data/readers/test_jsonl_property.py", True),
        ("test_errors.py", True),
        ("tools/test_lock.py", True),
        ("data/test_reader.py", False),
        ("test_jsonl.py", False),
        ("tools/test_jsonl.py", False),
    ],
)
def test_misplaced_unit_test_needs_its_module_beside_it(name: str, placed: bool, checkout: Path) -> None:
    """The tree of the tests is the tree of the code."""
    assert (misplaced(checkout / "tests" / "unit" / name, checkout) is None) == placed


def test_problems_in_other_levels_mirror_nothing(checkout: Path) -> None:
    """An end-to-end test belongs to no module; a conftest is no test."""
    for name in ("tests/e2e/test_story.py", "tests/unit/data/conftest.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text('def test_story_told_ends(): """Well."""')
    files = [checkout / "tests/e2e/test_story.py", checkout / "tests/unit/data/conftest.py"]
    assert problems_in(files, checkout) == []
