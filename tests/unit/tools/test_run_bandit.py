"""bandit counts only when it has read every file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from run_bandit import main, problems_of_report


def bandit_report(**changes: Any) -> dict[str, Any]:
    """Return the report of a clean scan of one file."""
    return {"results": [], "errors": [], "metrics": {"./src/a.py": {"loc": 3}, "_totals": {"loc": 3}}, **changes}


def test_problems_of_report_clean_scan_has_none() -> None:
    """Read and nothing found."""
    assert problems_of_report(bandit_report(), ["src/a.py"]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"results": [{"filename": "src/a.py", "line_number": 1, "test_id": "B307", "issue_text": "eval"}]},
        {"errors": [{"filename": "src/a.py", "reason": "syntax error while parsing AST from file"}]},
        {"metrics": {"_totals": {"loc": 3}}},
        {"metrics": {"./src/a.py": {"loc": 0}, "_totals": {"loc": 0}}},
    ],
    ids=["finding", "error", "file not read", "nothing read"],
)
def test_problems_of_report_anything_short_of_clean_is_a_problem(changes: dict[str, Any]) -> None:
    """What bandit forgives is not forgiven here."""
    assert problems_of_report(bandit_report(**changes), ["src/a.py"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [("A = 1\n", 0, "nothing to object"), ("eval(input())\n", 1, "B307"), ("def (\n", 1, "not scanned")],
)
def test_main_planted_file_decides_the_exit_code(
    code: str, expected: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finding and a file that cannot be parsed both fail."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "pyproject.toml").write_text("[tool.bandit]\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(code)
    assert main(["--root", str(tmp_path)]) == expected
    assert words in capsys.readouterr().out
