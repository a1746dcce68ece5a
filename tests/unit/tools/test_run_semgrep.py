"""semgrep counts only when its rules are proven and it has read every file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from run_semgrep import ENVIRONMENT, RULES, main, problems_of_proof, problems_of_scan


def test_problems_of_scan_clean_scan_has_none() -> None:
    """Read and nothing found."""
    assert problems_of_scan({"results": [], "errors": [], "paths": {"scanned": ["src/a.py"]}}, ["src/a.py"]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"results": [{"path": "a", "start": {"line": 1}, "check_id": "t.no-eval", "extra": {"message": "no"}}]},
        {"errors": [{"message": "rule could not be read"}]},
        {"paths": {"scanned": []}},
    ],
    ids=["finding", "error", "file not read"],
)
def test_problems_of_scan_anything_short_of_clean_is_a_problem(changes: dict[str, Any]) -> None:
    """What semgrep forgives is not forgiven here."""
    result = {"results": [], "errors": [], "paths": {"scanned": ["src/a.py"]}, **changes}
    assert len(problems_of_scan(result, ["src/a.py"])) == 1


@pytest.mark.parametrize(
    ("results", "problems"),
    [
        ({"tools/semgrep/a.yaml": {"checks": {"no-a": {"passed": True, "matches": {}}}}}, 0),
        ({"tools/semgrep/a.yaml": {"checks": {"no-a": {"passed": False, "matches": {}}}}}, 1),
        ({"tools/semgrep/a.yaml": {"checks": {}}}, 1),
        ({}, 1),
    ],
    ids=["proven", "finds something else", "no rule tried", "no planted file"],
)
def test_problems_of_proof_unproven_rule_is_a_problem(results: dict[str, Any], problems: int) -> None:
    """A rule without planted violations proves nothing."""
    assert len(problems_of_proof({"results": results}, ["tools/semgrep/a.yaml"])) == problems


@pytest.mark.slow
def test_main_planted_violation_in_source_fails(
    repository_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our rules find what is planted in a package; the same tree without it passes."""
    if not (repository_root / ENVIRONMENT / "installed.txt").is_file():
        pytest.skip("semgrep is not installed: make gates-setup")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copytree(repository_root / RULES, tmp_path / RULES)
    (tmp_path / ENVIRONMENT).parent.mkdir(parents=True)
    (tmp_path / ENVIRONMENT).symlink_to(repository_root / ENVIRONMENT)
    source = tmp_path / "src" / "codex_ml" / "a.py"
    source.parent.mkdir(parents=True)
    source.write_text("A = 1\n")
    assert main(["--root", str(tmp_path)]) == 0
    source.write_text("import pickle\nimport requests  # nosemgrep\n")
    assert main(["--root", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "no-pickle" in output
    assert "no-network-client" in output
