"""Every scan runs to its end, and only what was seen to pass passes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gates.isolation import Isolation
from gates.running import FAIL, PASS, Gate, Outcome
from gates.scans import REHEARSED, Scan


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs this code."""
    return (sys.executable, "-c", code)


def run(root: Path, *scans: Scan, accepted: str | None = None) -> tuple[list[Outcome], list[str]]:
    """Run scans and return how they ended, and what was said."""
    said: list[str] = []
    gate = Gate(root, Isolation((), "none"), said.append)
    return gate.run(scans, lambda: accepted), said


@pytest.mark.parametrize(
    ("scan", "status", "words"),
    [
        (Scan("a", (python("print('3 files: fine')"),)), PASS, "3 files: fine"),
        (Scan("a", (python("print('found'); raise SystemExit(1)"),)), FAIL, "exit code 1"),
        (Scan("a", (python("print('found'); raise SystemExit(3)"), python("print('fine')"))), FAIL, "exit code 3"),
        (Scan("a", (python("pass"),)), FAIL, "said nothing"),
        (Scan("a", (("no-such-program-of-codex",),)), FAIL, "exit code 127"),
        (Scan("a", (python("print('types....Passed')"),), {"mypy": "types"}), PASS, "passed"),
        (Scan("a", (python("print('types....Skipped')"),), {"mypy": "types"}), FAIL, "did not run: mypy"),
        (Scan("a", (python("print('REHEARSED with planted records')"),)), REHEARSED, "planted"),
        (Scan("a", (python("print('REHEARSED'); raise SystemExit(2)"),)), FAIL, "exit code 2"),
    ],
)
def test_run_one_scan_by_what_it_says_and_exits_with(scan: Scan, status: str, words: str, tmp_path: Path) -> None:
    """Found, silent, missing, skipped, rehearsed."""
    (outcome,), _ = run(tmp_path, scan)
    assert (outcome.status, words in outcome.note) == (status, True), outcome


def test_run_failing_scan_does_not_stop_the_others(tmp_path: Path) -> None:
    """All run; the finding is shown and kept."""
    bad = Scan("bad", (python("print('eval in line 3'); raise SystemExit(1)"),))
    good = Scan("good", (python("print('fine')"),))
    outcomes, said = run(tmp_path, bad, good)
    assert [outcome.status for outcome in outcomes] == [FAIL, PASS]
    assert "    eval in line 3" in said
    assert "eval in line 3" in (tmp_path / ".cache" / "gates" / "bad.log").read_text()


def test_run_tests_that_have_passed_on_this_tree_are_accepted(tmp_path: Path) -> None:
    """Only the scan `tests`, and only with a result."""
    tests = Scan("tests", (python("raise SystemExit(1)"),))
    types = Scan("types", (python("raise SystemExit(1)"),))
    outcomes, _ = run(tmp_path, tests, types, accepted="2026-11-23T00:00:00+00:00")
    assert [outcome.status for outcome in outcomes] == [PASS, FAIL]
    assert "this very tree" in outcomes[0].note
    outcomes, _ = run(tmp_path, tests)
    assert outcomes[0].status == FAIL
