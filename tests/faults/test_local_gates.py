"""The local gate as it is typed, on a small checkout: green when it is clean, red for each planted fault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from osv_audit.rehearsal import planted_record
from tool_environments import ENVIRONMENTS, PIP_AUDIT, SEMGREP

pytestmark = pytest.mark.slow
FULL = pytest.mark.full("gates")
Plant = Callable[[Path], object]
QUICK = ("licences", "sbom", "audit", "secrets", "bandit", "semgrep")


def write_database(checkout: Path, *, age_days: float, package: str = "codex-ml-planted-package") -> Path:
    """Write a database of one planted record, of which every version of the package before 99999 is affected."""
    record = planted_record(datetime.now(UTC) - timedelta(days=age_days))
    affected = record["affected"][0]  # type: ignore[index]
    affected["package"]["name"] = package
    affected["ranges"][0]["events"][1]["fixed"] = "99999"
    database = checkout / ".cache" / "planted-database"
    database.mkdir(parents=True, exist_ok=True)
    (database / "record.json").write_text(json.dumps(record))
    return database


@pytest.fixture
def checkout(tmp_path: Path, repository_root: Path) -> Path:
    """A checkout with the gate, one clean module, and a fresh database."""
    if not all(tool.is_current(repository_root) for tool in (SEMGREP, PIP_AUDIT)):
        pytest.skip("the scanners are not installed: make gates-setup")
    root = tmp_path / "checkout"
    for name in ("tools", "scripts"):
        shutil.copytree(repository_root / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".pre-commit-config.yaml", "pyproject.toml", ".gitignore", "docs/sbom.cdx.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository_root / name, root / name)
    # What is listed there lies in files that this checkout does not have.
    (root / "tools" / "secrets_allowed.txt").write_text("")
    package = root / "src" / "codex_ml"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Nothing yet."""\n')
    (package / "planted.py").write_text("A = 1\n")
    (root / ENVIRONMENTS).mkdir(parents=True)
    for tool in (SEMGREP, PIP_AUDIT):
        tool.directory(root).symlink_to(tool.directory(repository_root))
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    write_database(root, age_days=1)
    return root


REPOSITORY = Path(__file__).resolve().parents[2]


def run_gate(checkout: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, str], str]:
    """Run the gate and return its exit code, the status of each scan, and everything it printed."""
    answer = subprocess.run(
        [str(checkout / "scripts" / "codex_local_gates.sh"), *arguments],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            # The checkout is what is scanned; codex-ml itself is that of the repository.
            "PYTHONPATH": str(REPOSITORY / "src"),
            "CODEX_OSV_DATABASE": str(checkout / ".cache" / "planted-database"),
            "SKIP": "bandit,semgrep,secrets",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    summary = checkout / ".cache" / "gates" / "summary.json"
    scans = json.loads(summary.read_text())["scans"] if summary.is_file() else []
    return answer.returncode, {scan["name"]: scan["status"] for scan in scans}, answer.stdout + answer.stderr


def write_source(text: str) -> Plant:
    """Plant a line in the module."""
    return lambda checkout: (checkout / "src" / "codex_ml" / "planted.py").write_text(text)


def plant_token(checkout: Path) -> None:
    """Plant a token; it is put together here so that this file holds none."""
    (checkout / "notes.txt").write_text("key: " + "gh" + "p_" + "a1B2c3D4e5" * 3 + "a1B2c3\n")


def plant_token_in_utf16(checkout: Path) -> None:
    """Plant a token in a UTF-16 file, as some Windows editors write it."""
    (checkout / "notes.txt").write_bytes(("key: " + "gh" + "p_" + "a1B2c3D4e5" * 3 + "a1B2c3\n").encode("utf-16"))


def plant_empty_source(checkout: Path) -> None:
    """Leave the folder of the sources without a file."""
    shutil.rmtree(checkout / "src")
    (checkout / "src").mkdir()


def forbid_mit(checkout: Path) -> None:
    """Allow one licence less, which packages here have."""
    file = checkout / "tools" / "licences.toml"
    file.write_text(file.read_text().replace('  "MIT",\n', ""))


def test_gate_clean_checkout_passes_without_a_network(checkout: Path) -> None:
    """Every quick scan, whatever SKIP says; then the summary with the telemetry status."""
    code, statuses, output = run_gate(checkout, "--only", *QUICK)
    assert (code, statuses) == (0, dict.fromkeys(QUICK, "PASS")), output
    assert "telemetry status" in output
    assert "isolation:" in output


@pytest.mark.parametrize(
    ("plant", "scans", "words"),
    [
        (write_source("eval(input())\n"), ["bandit", "semgrep"], "B307"),
        pytest.param(write_source("import pickle\n\npickle.load(open('a', 'rb'))\n"), ["bandit"], "B301", marks=FULL),
        pytest.param(write_source("import _pickle\n"), ["semgrep"], "planted.py:1: no-pickle", marks=FULL),
        pytest.param(write_source("def broken(:\n"), ["bandit"], "not scanned", marks=FULL),
        pytest.param(plant_empty_source, ["bandit"], "nothing was scanned", marks=FULL),
        (plant_token, ["secrets"], "notes.txt"),
        pytest.param(plant_token_in_utf16, ["secrets"], "notes.txt:1: github_token", marks=FULL),
        (forbid_mit, ["licences"], "not allowed"),
        (lambda root: write_database(root, age_days=1, package="pyyaml"), ["audit"], f"pyyaml {version('pyyaml')}"),
        pytest.param(lambda root: write_database(root, age_days=40), ["audit"], "40.0 days old", marks=FULL),
        pytest.param(
            lambda root: shutil.rmtree(root / ".cache" / "planted-database"),
            ["audit"],
            "no vulnerability database",
            marks=FULL,
        ),
        pytest.param(lambda root: PIP_AUDIT.directory(root).unlink(), ["audit"], "make gates-setup", marks=FULL),
        pytest.param(lambda root: SEMGREP.directory(root).unlink(), ["semgrep"], "nothing was scanned", marks=FULL),
        (lambda root: (root / "docs" / "sbom.cdx.json").unlink(), ["sbom"], "no bill of materials"),
    ],
    ids=[
        "eval",
        "pickle",
        "pickle by its private module name",
        "broken file",
        "empty source folder",
        "token",
        "token in UTF-16",
        "licence",
        "vulnerable package",
        "database of 40 days",
        "no database",
        "no pip-audit",
        "no semgrep",
        "no bill of materials",
    ],
)
def test_gate_planted_fault_fails_and_the_rest_still_runs(
    plant: Plant, scans: list[str], words: str, checkout: Path
) -> None:
    """Each fault is found by its scan; a scan behind it runs to its end."""
    plant(checkout)
    others = [name for name in ("licences", "secrets") if name not in scans]
    code, statuses, output = run_gate(checkout, "--only", *scans, *others)
    assert code == 1, output
    assert statuses == {**dict.fromkeys(scans, "FAIL"), **dict.fromkeys(others, "PASS")}, output
    assert words in output


def test_gate_missing_database_is_rehearsed_only_when_asked(checkout: Path) -> None:
    """A machine without a database: said in the line, in the summary and in the verdict."""
    shutil.rmtree(checkout / ".cache" / "planted-database")
    code, statuses, output = run_gate(checkout, "--only", "audit", CODEX_GATES_REHEARSE_AUDIT="1")
    assert (code, statuses) == (0, {"audit": "REHEARSED"}), output
    assert output.rstrip().endswith("GATE: PASS, audit only rehearsed")


def test_gate_stale_database_is_not_rehearsed(checkout: Path) -> None:
    """The setting is for a machine without one, and does not hide an old one."""
    write_database(checkout, age_days=40)
    code, statuses, _ = run_gate(checkout, "--only", "audit", "--rehearse-audit")
    assert (code, statuses) == (1, {"audit": "FAIL"})


def test_gate_missing_python_exits_with_two(checkout: Path) -> None:
    """Nothing was scanned, and it says what to do."""
    code, statuses, output = run_gate(checkout, PYTHON="no-such-python")
    assert (code, statuses) == (2, {})
    assert "cannot be started" in output


def test_gate_help_without_an_environment_is_shown(checkout: Path, tmp_path: Path) -> None:
    """What it is for can be read before anything is installed; anything else is refused."""
    bare = tmp_path / "python-without-tools"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    code, _, output = run_gate(checkout, "--help", PYTHON=str(bare))
    assert (code, "usage:" in output) == (0, True)
    assert run_gate(checkout, PYTHON=str(bare))[0] == 2
