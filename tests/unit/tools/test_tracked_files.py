"""Files under version control, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tracked_files import NothingToCheckError, report, tracked_files


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return an empty git work tree."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def test_tracked_files_ignored_and_deleted_are_left_out(checkout: Path) -> None:
    """A new file counts before it is added; one that is ignored or gone does not; odd names survive."""
    (checkout / ".gitignore").write_text("*.log\n")
    for name in ("a.py", "b.log", "ü b.py", "gone.py"):
        (checkout / name).write_text("")
    subprocess.run(["git", "add", "gone.py"], cwd=checkout, check=True)
    (checkout / "gone.py").unlink()
    assert [file.name for file in tracked_files(checkout, "*.py")] == ["a.py", "ü b.py"]
    assert [file.name for file in tracked_files(checkout)] == [".gitignore", "a.py", "ü b.py"]


def test_tracked_files_none_matches_is_an_error(checkout: Path) -> None:
    """A check that saw no file must not count as passed."""
    with pytest.raises(NothingToCheckError, match=r"src/\*\.py"):
        tracked_files(checkout, "src/*.py")


def test_report_problem_or_none_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """One problem is enough for 1; what was checked is always said."""
    assert report(["a.py:1: wrong"], "2 files") == 1
    assert report([], "2 files") == 0
    assert capsys.readouterr().out == "a.py:1: wrong\n1 problems in 2 files\n2 files: nothing to object to\n"
