"""`codex-ml runs rm` as a user types it: nothing goes without a yes, and nothing when one of several may not go."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.layout import RunLayout, close_record, create_run

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunLayout]:
    """Return two ended runs."""
    layouts = []
    for name in ("a", "b"):
        layout, record = create_run(tmp_path / "runs", name, STARTED, Storage())
        close_record(layout, record, "FINISHED", STARTED, Storage())
        layouts.append(layout)
    return layouts


def answered(command_line, directory: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal that types an answer, and return exit code and standard output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command_line.command(*arguments), cwd=directory, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    output, _ = process.communicate(timeout=180)
    os.close(ours)
    return process.returncode, output


@pytest.mark.slow
def test_runs_rm_without_terminal_needs_yes(command_line, tmp_path, runs) -> None:
    """A script says --yes; a dry run shows what would go; both names of one run count once."""
    name = runs[0].directory.name
    refused = command_line.run("runs", "rm", name, directory=tmp_path)
    assert (refused.returncode, runs[0].record.exists()) == (2, True)
    assert "add --yes" in refused.stderr
    shown = command_line.run("runs", "rm", name, str(runs[0].directory), "--dry-run", directory=tmp_path)
    assert (shown.returncode, runs[0].record.exists()) == (0, True)
    assert "would remove 1 run, " in shown.stdout
    (tmp_path / "runs" / "mlflow.db").write_bytes(b"")
    done = command_line.run("runs", "rm", name, "--yes", directory=tmp_path)
    assert (done.returncode, runs[0].directory.exists(), runs[1].directory.exists()) == (0, False, True)
    assert "mlflow.db stay" in done.stderr


@pytest.mark.slow
def test_runs_rm_one_of_several_unknown_removes_none(command_line, tmp_path, runs) -> None:
    """Everything is looked at before the first goes."""
    answer = command_line.run("runs", "rm", runs[0].directory.name, "nothing", "--yes", directory=tmp_path)
    assert answer.returncode == 2
    assert all(layout.record.exists() for layout in runs)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "is_gone"), [("n", False), ("y", True)])
def test_runs_rm_on_terminal_asks(command_line, tmp_path, runs, answer, is_gone) -> None:
    """On a terminal the answer decides."""
    code, _ = answered(command_line, tmp_path, answer, "runs", "rm", runs[1].directory.name)
    assert code == 0
    assert runs[1].directory.exists() is not is_gone


@pytest.mark.slow
@pytest.mark.parametrize("place", ["elsewhere", "runs"])
def test_runs_rm_again_finishes_an_interrupted_removal(command_line, tmp_path, place) -> None:
    """Outside runs/ it works for the given path; remains of other runs there are left alone."""
    layout, record = create_run(tmp_path / place, "a", STARTED, Storage())
    close_record(layout, record, "FINISHED", STARTED, Storage())
    left = layout.directory.rename(layout.directory.with_name(f".removed-{layout.directory.name}.1"))
    other = left.with_name(".removed-other.1")
    other.mkdir()
    named = layout.directory.name if place == "runs" else str(layout.directory.relative_to(tmp_path))
    done = command_line.run("runs", "rm", named, "--yes", directory=tmp_path)
    assert (done.returncode, left.exists()) == (0, False), done.stderr
    assert f"finished an interrupted removal: {layout.directory.name}" in done.stderr
    assert other.exists() is (place == "elsewhere")
