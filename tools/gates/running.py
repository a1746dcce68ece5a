"""Runs scans one after another, each to its end, and says of each whether it passed, its seconds, and why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gates.isolation import OFFLINE, Isolation
from gates.scans import REHEARSED, Scan, hooks_not_passed

LOGS = Path(".cache") / "gates"
LINES_SHOWN = 40
PASS, FAIL = "PASS", "FAIL"
# An hour: a scan that hangs is one that could not scan.
LIMIT_SECONDS = 3600


@dataclass(frozen=True)
class Outcome:
    """How a scan ended: PASS, FAIL or REHEARSED, the seconds it took, and one line about it."""

    name: str
    status: str
    seconds: float
    note: str


@dataclass(frozen=True)
class Gate:
    """What scans are run with."""

    root: Path
    isolation: Isolation
    emit: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic

    def run(self, scans: Sequence[Scan], accepted_tests: Callable[[], str | None]) -> list[Outcome]:
        """Run every scan, whatever the ones before it found."""
        outcomes = []
        for scan in scans:
            began = self.clock()
            passed_before = accepted_tests() if scan.name == "tests" else None
            if passed_before is not None:
                status, note = PASS, f"every test has passed on this very tree at {passed_before} (make test)"
            else:
                status, note = self._run(scan)
            outcome = Outcome(scan.name, status, round(self.clock() - began, 1), note)
            outcomes.append(outcome)
            self.emit(line_of(outcome))
        return outcomes

    def _run(self, scan: Scan) -> tuple[str, str]:
        output = ""
        problem = ""
        for command in scan.commands:
            code, text = self._call(command, scan)
            output += text
            if code != 0:
                problem = problem or f"exit code {code}"
        if not problem and (missing := hooks_not_passed(scan, output)):
            problem = f"did not run: {', '.join(missing)}"
        if not problem and not output.strip():
            problem = "said nothing: it cannot be known whether anything was scanned"
        log = self.root / LOGS / f"{scan.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output, encoding="utf-8")
        lines = [line for line in output.splitlines() if line.strip()]
        if problem:
            for line in lines[-LINES_SHOWN:]:
                self.emit(f"    {line}")
            return FAIL, f"{problem}; all of it in {log.relative_to(self.root)}"
        rehearsed = next((line for line in lines if line.startswith(REHEARSED)), None)
        return (REHEARSED, rehearsed) if rehearsed else (PASS, _last_word(lines))

    def _call(self, command: Sequence[str], scan: Scan) -> tuple[int, str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **OFFLINE,
            # The programs of the hooks come from the environment of this Python.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PRE_COMMIT_HOME": str(self.root / ".cache" / "pre-commit"),
            **scan.environment,
        }
        try:
            answer = subprocess.run(
                [*self.isolation.prefix, *command],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=LIMIT_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 127, f"{command[0]} cannot be run: {error}\n"
        return answer.returncode, answer.stdout


def line_of(outcome: Outcome) -> str:
    """Return the line of the summary for one scan."""
    return f"{outcome.status:<9} {outcome.name:<10} {outcome.seconds:7.1f} s  {outcome.note}"


def write_summary(root: Path, outcomes: Sequence[Outcome], isolation: Isolation) -> None:
    """Write the outcomes for a machine to read."""
    document = {"isolation": isolation.description, "scans": [asdict(outcome) for outcome in outcomes]}
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    (root / LOGS / "summary.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _last_word(lines: Sequence[str]) -> str:
    # pre-commit's own lines ("- duration: 0.3s", "name....Passed") say less than what the hook itself printed.
    said = [line for line in lines if not line.startswith("- ") and not line.rstrip().endswith(("Passed", "Skipped"))]
    return said[-1].strip() if said else "passed"
