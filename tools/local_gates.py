"""The local gate: every scan, none over a network, and no scan that could not scan counts as passed.

`scripts/codex_local_gates.sh` finds the Python of the checkout and calls this. Exit codes: 0 every scan passed; 1 one
failed or could not scan; 2 the gate could not be started.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gates.isolation import OFFLINE, find_isolation
from gates.running import FAIL, PASS, Gate, Outcome, line_of, write_summary
from gates.scans import ConfigurationError, all_scans
from tested_tree import accepted

REHEARSE_VARIABLE = "CODEX_GATES_REHEARSE_AUDIT"


def telemetry_status(root: Path) -> str:
    """Return what codex-ml says of what this machine can measure and track."""
    command = [sys.executable, "-m", "codex_ml.monitoring.codex_logging", "--dry-run"]
    answer = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, env={**os.environ, **OFFLINE}
    )
    return answer.stdout if answer.returncode == 0 else f"telemetry status: UNKNOWN\n{answer.stderr.strip()[-400:]}"


def summary_of(outcomes: Sequence[Outcome], *, partial: bool) -> tuple[list[str], int]:
    """Return the lines of the summary and the exit code."""
    failed = [outcome.name for outcome in outcomes if outcome.status == FAIL]
    rehearsed = [outcome.name for outcome in outcomes if outcome.status not in (PASS, FAIL)]
    lines = [line_of(outcome) for outcome in outcomes]
    seconds = sum(outcome.seconds for outcome in outcomes)
    counts = f"{len(outcomes) - len(failed) - len(rehearsed)} passed, {len(failed)} failed, {len(rehearsed)} rehearsed"
    lines.append(f"{counts}, {seconds:.0f} s")
    if rehearsed:
        lines.append(f"only rehearsed, because that was asked for: {', '.join(rehearsed)} has judged nothing")
    if partial:
        lines.append("PARTIAL: not every scan was asked for; this is not the gate")
    if not outcomes:
        failed = ["nothing ran"]
    verdict = f"FAIL ({', '.join(failed)})" if failed else "PASS"
    lines.append(f"GATE: {verdict}" + (f", {', '.join(rehearsed)} only rehearsed" if rehearsed else ""))
    return lines, 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codex_local_gates.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--list", action="store_true", help="show the scans and run none")
    parser.add_argument(
        "--only", nargs="+", metavar="SCAN", help="run these only; the summary says that it is not the gate"
    )
    parser.add_argument(
        "--rehearse-audit",
        action="store_true",
        default=os.environ.get(REHEARSE_VARIABLE) == "1",
        help=f"where there is no database, audit planted records and say so ({REHEARSE_VARIABLE}=1); default: fail",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gate and return the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    try:
        scans = all_scans(root, rehearse_audit=chosen.rehearse_audit)
    except ConfigurationError as error:
        print(f"the gate cannot be started: {error}")
        return 2
    names = [scan.name for scan in scans]
    if chosen.list:
        print("\n".join(names))
        return 0
    if unknown := sorted(set(chosen.only or ()) - set(names)):
        parser.error(f"no scan {', '.join(unknown)}; there are {', '.join(names)}")
    isolation = find_isolation()
    print(f"isolation: {isolation.description}")
    asked = [scan for scan in scans if chosen.only is None or scan.name in chosen.only]
    gate = Gate(root, isolation, lambda line: print(line, flush=True))
    outcomes = gate.run(asked, lambda: accepted(root))
    write_summary(root, outcomes, isolation)
    lines, code = summary_of(outcomes, partial=len(asked) < len(scans))
    print("\n" + telemetry_status(root) + "\nsummary\n" + "\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
