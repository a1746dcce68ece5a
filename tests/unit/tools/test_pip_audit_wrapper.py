"""The audit as it is typed, with the real pip-audit: each exit code, on planted records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from osv_audit.rehearsal import IDENTIFIER, PLANTED, planted_record
from tool_environments import PIP_AUDIT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(repository_root: Path) -> Run:
    """Run the wrapper and return what it says."""
    if not PIP_AUDIT.is_current(repository_root):
        pytest.skip("pip-audit is not installed: make gates-setup")

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(repository_root / "tools" / "pip_audit_wrapper.py"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300
        )

    return run


def write_records(directory: Path, age_days: float) -> Path:
    """Write a directory of one planted record."""
    directory.mkdir()
    record = planted_record(datetime.now(UTC) - timedelta(days=age_days))
    (directory / "record.json").write_text(json.dumps(record))
    return directory


def pin(tmp_path: Path, version: str) -> Path:
    """Write a requirements file of one pin."""
    file = tmp_path / f"pins-{version}.txt"
    file.write_text(f"{PLANTED}=={version}\n")
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("age_days", "version", "code", "words"),
    [
        (1, "1.1", 0, "0 findings"),
        (1, "1.0", 1, IDENTIFIER),
        (1, "1.0rc1+local.2", 1, IDENTIFIER),
        (10, "1.1", 0, "WARNING"),
        (40, "1.1", 4, "40.0 days old"),
    ],
)
def test_audit_of_a_pin_exits_by_what_is_known(
    age_days: float, version: str, code: int, words: str, tmp_path: Path, run: Run
) -> None:
    """Clean, vulnerable, warned of, stale."""
    answer = run("--database", write_records(tmp_path / "db", age_days), "-r", pin(tmp_path, version))
    assert (answer.returncode, words in answer.stdout) == (code, True), answer.stdout


@pytest.mark.slow
def test_audit_without_a_database_exits_with_three(tmp_path: Path, run: Run) -> None:
    """Missing, named by the environment variable too; and corrupt."""
    assert run("-r", pin(tmp_path, "1.1"), CODEX_OSV_DATABASE=str(tmp_path / "none")).returncode == 3
    (tmp_path / "all.zip").write_bytes(b"PK\x03\x04 cut off")
    assert run("--database", tmp_path / "all.zip", "-r", pin(tmp_path, "1.1")).returncode == 3


@pytest.mark.slow
def test_audit_that_cannot_run_exits_with_two(tmp_path: Path, run: Run) -> None:
    """No program, no packages, a wrong option."""
    database = write_records(tmp_path / "db", 1)
    none = tmp_path / "none"
    assert run("--database", database, "-r", pin(tmp_path, "1.1"), "--pip-audit", none).returncode == 2
    assert run("--database", database, "--site-packages", none).returncode == 2
    assert run("--wrong-option").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("days_left", "code", "words"), [(5, 0, "waived until"), (0, 0, "waived until"), (-1, 1, "is over")]
)
def test_audit_with_a_waiver_passes_until_its_last_day(
    days_left: int, code: int, words: str, tmp_path: Path, run: Run
) -> None:
    """A waiver that is over fails."""
    waivers = tmp_path / "waivers.toml"
    expires = datetime.now(UTC).date() + timedelta(days=days_left)
    waivers.write_text(
        f'[[waiver]]\nid = "{IDENTIFIER}"\npackage = "{PLANTED}"\nreason = "a test"\nexpires = {expires}\n'
    )
    database = write_records(tmp_path / "db", 1)
    answer = run("--database", database, "-r", pin(tmp_path, "1.0"), "--waivers", waivers)
    assert (answer.returncode, words in answer.stdout) == (code, True), answer.stdout


@pytest.mark.slow
def test_import_from_a_medium_is_what_the_audit_uses(tmp_path: Path, run: Run) -> None:
    """Records onto a medium with a manifest, over to the machine, and used there."""
    assert run("import", write_records(tmp_path / "records", 1), "--database", tmp_path / "outside").returncode == 0
    archive = tmp_path / "outside" / "PyPI" / "all.zip"
    assert run("manifest", archive).returncode == 0
    assert run("import", tmp_path / "outside", "--database", tmp_path / "inside").returncode == 0
    assert run("status", "--database", tmp_path / "inside").returncode == 0
    assert run("--database", tmp_path / "inside", "-r", pin(tmp_path, "1.0")).returncode == 1
    archive.write_bytes(archive.read_bytes() + b"x")
    assert run("import", tmp_path / "outside", "--database", tmp_path / "inside").returncode == 3


@pytest.mark.slow
def test_rehearse_planted_records_shows_each_verdict(run: Run) -> None:
    """The whole chain, over the packages that are installed; it says that it has judged none."""
    answer = run("rehearse")
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.count("as it must be") == 5
    assert "NOT looked at" in answer.stdout
