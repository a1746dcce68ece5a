"""Runs bandit over ``src`` and believes it only when it has read every file.

bandit exits with 0 for a folder that does not exist and for a file that it could not parse; both are failures here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracked_files import NothingToCheckError, report, tracked_files


def problems_of_report(result: Mapping[str, Any], expected: Sequence[str]) -> list[str]:
    """Return the findings of a bandit report, its errors, and the files it should have read and did not.

    Parameters
    ----------
    result : mapping
        The JSON report.
    expected : sequence of str
        The files that were to be scanned.
    """
    problems = [
        f"{finding['filename']}:{finding['line_number']}: {finding['test_id']} {finding['issue_text']}"
        for finding in result["results"]
    ]
    problems.extend(f"{error['filename']}: not scanned: {error['reason']}" for error in result["errors"])
    scanned = {name.removeprefix("./") for name in result["metrics"]}
    problems.extend(f"{file}: not scanned" for file in expected if file not in scanned)
    if result["metrics"]["_totals"]["loc"] == 0:
        problems.append("bandit read not one line of code")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Scan a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Runs bandit over src/ and checks that it has read every file.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    root = parser.parse_args(arguments).root.resolve()
    try:
        files = [str(file.relative_to(root)) for file in tracked_files(root, "src/*.py")]
    except NothingToCheckError as error:
        return report([f"nothing was scanned: {error}"], "the source folder")
    command = [sys.executable, "-m", "bandit", "--quiet", "--format", "json", "--configfile", "pyproject.toml", *files]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if answer.returncode not in (0, 1):
        return report([f"bandit exits with {answer.returncode}: {answer.stderr.strip()}"], "the run of bandit")
    try:
        problems = problems_of_report(json.loads(answer.stdout), files)
    except (ValueError, KeyError, TypeError) as error:
        return report([f"bandit gave no report that can be read: {error}; {answer.stderr.strip()}"], "its report")
    if answer.returncode and not problems:
        problems = [f"bandit exits with {answer.returncode} and names nothing: {answer.stderr.strip()}"]
    return report(problems, f"{len(files)} files")


if __name__ == "__main__":
    sys.exit(main())
