"""A result of tests counts for the very tree that was tested, and for no other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tested_tree import PASSED, accepted, begin, finish, tree_digest

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout of one file."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text(".cache/\n")
    (tmp_path / "a.py").write_text("A = 1\n")
    return tmp_path


def test_accepted_tests_that_ran_on_this_tree_count(tree: Path) -> None:
    """Noted before and behind, and nothing changed."""
    assert begin(tree, {}) is None
    assert accepted(tree) is None
    assert finish(tree, NOW) is None
    assert accepted(tree) == "2026-11-23T00:00:00+00:00"


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "a.py").write_text("A = 2\n"),
        lambda tree: (tree / "b.py").write_text(""),
        lambda tree: (tree / "a.py").rename(tree / "c.py"),
        lambda tree: (tree / "a.py").chmod(0o755),
        lambda tree: (tree / PASSED).write_text("{}"),
        lambda tree: (tree / PASSED).unlink(),
    ],
    ids=["changed", "a new file", "renamed", "executable", "no note to read", "no note"],
)
def test_accepted_changed_tree_does_not_count(change: Callable[[Path], object], tree: Path) -> None:
    """The tests have not seen it."""
    begin(tree, {})
    finish(tree, NOW)
    change(tree)
    assert accepted(tree) is None


def test_finish_tree_changed_while_testing_does_not_count(tree: Path) -> None:
    """Nobody knows which of the two was tested."""
    begin(tree, {})
    (tree / "a.py").write_text("A = 2\n")
    assert "changed" in (finish(tree, NOW) or "")
    assert accepted(tree) is None


def test_begin_narrowing_options_do_not_count(tree: Path) -> None:
    """``-k`` from outside leaves tests out; an older result is gone too."""
    begin(tree, {})
    finish(tree, NOW)
    assert "PYTEST_ADDOPTS" in (begin(tree, {"PYTEST_ADDOPTS": "-k nothing"}) or "")
    assert "noted" in (finish(tree, NOW) or "")
    assert accepted(tree) is None


def test_tree_digest_ignored_file_changes_nothing(tree: Path) -> None:
    """Caches are no part of the tree."""
    before = tree_digest(tree)
    (tree / ".cache").mkdir()
    (tree / ".cache" / "x").write_text("x")
    assert tree_digest(tree) == before
