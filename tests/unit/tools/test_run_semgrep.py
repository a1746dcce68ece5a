"""semgrep counts only when its rules are proven and it has read every file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from run_semgrep import ENVIRONMENT, RULES, main, problems_of_proof, problems_of_scan
from semgrep_exemptions import Exemptions, read_exemptions


def test_problems_of_scan_clean_scan_has_none() -> None:
    """Read and nothing found."""
    assert (
        problems_of_scan({"results": [], "errors": [], "paths": {"scanned": ["src/a.py"]}}, ["src/a.py"], Exemptions())
        == []
    )


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
    assert len(problems_of_scan(result, ["src/a.py"], Exemptions())) == 1


def finding(rule: str, line: int) -> dict[str, Any]:
    """Return a finding in src/a.py as semgrep reports it."""
    return {"path": "src/a.py", "start": {"line": line}, "check_id": f"t.{rule}", "extra": {"message": "no"}}


def test_problems_of_scan_exempted_line_is_no_problem_and_its_neighbour_is() -> None:
    """A comment exempts one line from one rule."""
    source = "# allowed: no-dynamic-import, a table of our own\nimport_module(a)\nimport_module(b)\n"
    results = [finding("no-dynamic-import", 2), finding("no-dynamic-attribute", 2), finding("no-dynamic-import", 3)]
    result = {"results": results, "errors": [], "paths": {"scanned": ["src/a.py"]}}
    problems = problems_of_scan(result, ["src/a.py"], read_exemptions({"src/a.py": source}))
    assert [problem.split(" ")[:2] for problem in problems] == [
        ["src/a.py:2:", "no-dynamic-attribute"],
        ["src/a.py:3:", "no-dynamic-import"],
    ]


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


# One line each; the rules' own planted files in tools/semgrep hold many more.
HIDDEN_VIOLATIONS = {
    "import pickle": "no-pickle",
    "import requests  # nosemgrep": "no-network-client",
    "import _pickle": "no-pickle",
    "from multiprocessing.reduction import ForkingPickler": "no-pickle",
    "from multiprocessing.connection import Listener": "no-pickle",
    'module = __import__("pick" + "le")': "no-pickle",
    'evaluate = getattr(module, "ev" + "al")': "no-dynamic-attribute",
    'loaded = importlib.import_module("pick" + "le")': "no-dynamic-import",
    "other = importlib.import_module(name)": "no-dynamic-import",
    "alias = eval": "no-eval",
    "from os import system as run": "no-shell",
    "subprocess.run(name, **options)": "no-shell",
    "read = yaml.unsafe_load": "no-yaml-load",
    "import ctypes": "no-ctypes",
}
NEAR_MISSES = (
    "from multiprocessing import get_context\n"
    "known = importlib.import_module('mlflow')\n"
    "value = getattr(known, name)\n"
    "known.eval()\n"
    "subprocess.run(['ls', name], check=True)\n"
    "data = yaml.safe_load(text)\n"
    "import arrayctypes\n"
)


@pytest.mark.slow
def test_main_violations_are_each_found_and_near_misses_are_not(
    repository_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other names of a forbidden module, aliases and composed names are found; a tree without them passes."""
    if not (repository_root / ENVIRONMENT / "installed.txt").is_file():
        pytest.skip("semgrep is not installed: make gates-setup")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copytree(repository_root / RULES, tmp_path / RULES)
    (tmp_path / ENVIRONMENT).parent.mkdir(parents=True)
    (tmp_path / ENVIRONMENT).symlink_to(repository_root / ENVIRONMENT)
    source = tmp_path / "src" / "codex_ml" / "a.py"
    source.parent.mkdir(parents=True)
    head = "import importlib\nimport subprocess\nimport yaml\n"
    source.write_text(head + NEAR_MISSES)
    assert main(["--root", str(tmp_path)]) == 0
    capsys.readouterr()
    source.write_text(head + "".join(f"{line}\n" for line in HIDDEN_VIOLATIONS))
    assert main(["--root", str(tmp_path)]) == 1
    found = {tuple(line.split(" ")[:2]) for line in capsys.readouterr().out.splitlines()}
    for number, rule in enumerate(HIDDEN_VIOLATIONS.values(), start=4):
        assert (f"src/codex_ml/a.py:{number}:", rule) in found
