"""The summary of the gate and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from gates.running import Outcome
from local_gates import main, summary_of, telemetry_status


@pytest.mark.parametrize(
    ("statuses", "code", "last"),
    [
        (["PASS", "PASS"], 0, "GATE: PASS"),
        (["PASS", "FAIL"], 1, "GATE: FAIL (scan1)"),
        (["REHEARSED", "PASS"], 0, "GATE: PASS, scan0 only rehearsed"),
        ([], 1, "GATE: FAIL (nothing ran)"),
    ],
)
def test_summary_of_outcomes_by_their_status(statuses: list[str], code: int, last: str) -> None:
    """One failure fails; a rehearsal is named; no scan at all is no success."""
    outcomes = [Outcome(f"scan{number}", status, 1.0, "note") for number, status in enumerate(statuses)]
    lines, exit_code = summary_of(outcomes, partial=False)
    assert exit_code == code
    assert lines[-1] == last


def test_summary_of_partial_run_says_so() -> None:
    """Some scans are not the gate."""
    lines, _ = summary_of([Outcome("a", "PASS", 1.0, "")], partial=True)
    assert any("PARTIAL" in line for line in lines)


def test_main_unknown_scan_exits_with_two(repository_root: Path) -> None:
    """A name with a typing error must not run nothing."""
    with pytest.raises(SystemExit, match="2"):
        main(["--root", str(repository_root), "--only", "bandti"])


def test_main_without_a_configuration_exits_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no list of scans."""
    assert main(["--root", str(tmp_path)]) == 2
    assert "cannot be started" in capsys.readouterr().out


@pytest.mark.slow
def test_telemetry_status_of_this_machine_names_the_trackers(repository_root: Path) -> None:
    """The line that the summary shows."""
    assert "mlflow" in telemetry_status(repository_root)
