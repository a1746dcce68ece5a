"""Runs semgrep with the rules of ``tools/semgrep`` and believes it only when it has read every file.

semgrep exits with 0 for an empty folder and for a file it could not parse; both are failures here. The rules are proven
first: each must find the violations planted beside it, and nothing else. semgrep has an environment of its own,
``.cache/environments/semgrep``, because its pins clash with those of mlflow; it is made on the first call, or by
``--setup``. Nothing is asked of a network afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semgrep_exemptions import Exemptions, read_exemptions
from tool_environments import ENVIRONMENTS, SEMGREP
from tracked_files import report, tracked_files

ENVIRONMENT = ENVIRONMENTS / SEMGREP.name
RULES = Path("tools") / "semgrep"
SCANNED = ("src/*.py", "tracking/*.py", "scripts/*.py", "tools/*.py", "examples/*.py", "benchmarks/*.py", "noxfile.py")
OFFLINE = {"SEMGREP_SEND_METRICS": "off", "SEMGREP_ENABLE_VERSION_CHECK": "0"}


def problems_of_scan(result: Mapping[str, Any], expected: Sequence[str], exemptions: Exemptions) -> list[str]:
    """Return the findings of a scan, its errors, and the files it should have read and did not.

    Parameters
    ----------
    result : mapping
        The JSON that ``semgrep scan --json`` prints.
    expected : sequence of str
        The files that were to be scanned.
    exemptions : Exemptions
        The lines that a comment exempts from a rule.
    """
    problems = []
    for finding in result["results"]:
        path, line, rule = finding["path"], finding["start"]["line"], finding["check_id"].rpartition(".")[2]
        if not exemptions.covers(path, line, rule):
            problems.append(f"{path}:{line}: {rule} {finding['extra']['message'].strip()}")
    problems.extend(exemptions.all_problems())
    problems.extend(f"semgrep: {error.get('message', error)}" for error in result["errors"])
    scanned = set(result["paths"]["scanned"])
    problems.extend(f"{file}: not scanned" for file in expected if file not in scanned)
    return problems


def problems_of_proof(result: Mapping[str, Any], rule_files: Sequence[str]) -> list[str]:
    """Return the rules whose planted violations were not found exactly, and the rule files that have none.

    Parameters
    ----------
    result : mapping
        The JSON that ``semgrep scan --test --json`` prints.
    rule_files : sequence of str
        The rule files that were to be proven.
    """
    problems = []
    proven = result["results"]
    for file in rule_files:
        checks: dict[str, Any] = next((one["checks"] for name, one in proven.items() if Path(name) == Path(file)), {})
        if not checks:
            problems.append(f"{file}: has no planted violations beside it")
        for rule, check in checks.items():
            if not check["passed"]:
                problems.append(f"{file}: {rule} does not find what is planted: {json.dumps(check['matches'])}")
    return problems


def run(program: Path, arguments: Sequence[str], root: Path) -> Mapping[str, Any]:
    """Run semgrep and return the JSON it prints.

    Raises
    ------
    ValueError
        If it prints none; the message holds what it says instead.
    """
    command = [str(program), "scan", "--json", "--metrics=off", "--disable-version-check", *arguments]
    # semgrep starts its own core by name, so its folder must come first; its settings and logs stay below .cache.
    environment = {
        **os.environ,
        **OFFLINE,
        "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "SEMGREP_SETTINGS_FILE": str(root / ENVIRONMENT / "settings.yml"),
        "SEMGREP_LOG_FILE": str(root / ENVIRONMENT / "semgrep.log"),
        "SEMGREP_VERSION_CACHE_PATH": str(root / ENVIRONMENT / "version"),
    }
    answer = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    try:
        result: Mapping[str, Any] = json.loads(answer.stdout)
    except ValueError as error:
        raise ValueError(f"semgrep exits with {answer.returncode} and no report: {answer.stderr.strip()}") from error
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove the rules, scan a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Runs semgrep with our own rules and checks that it read every file.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--setup", action="store_true", help="only make the environment of semgrep")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    try:
        program = SEMGREP.ensure(root)
    except (OSError, subprocess.CalledProcessError) as error:
        return report([f"semgrep cannot be installed, so nothing was scanned: {error}"], "the setup of semgrep")
    if chosen.setup:
        return 0
    rule_files = [str(file.relative_to(root)) for file in tracked_files(root, f"{RULES}/*.yaml")]
    files = [str(file.relative_to(root)) for file in tracked_files(root, *SCANNED)]
    files = [file for file in files if not Path(file).is_relative_to(RULES)]
    try:
        problems = problems_of_proof(run(program, ["--test", str(RULES)], root), rule_files)
        scan = ["--no-git-ignore", "--disable-nosem", "--config", str(RULES), *files]
        sources = {file: (root / file).read_text(encoding="utf-8", errors="replace") for file in files}
        problems.extend(problems_of_scan(run(program, scan, root), files, read_exemptions(sources)))
    except (ValueError, KeyError, TypeError) as error:
        problems = [f"semgrep gave no report that can be read: {error}"]
    return report(problems, f"{len(files)} files, {len(rule_files)} rule files")


if __name__ == "__main__":
    sys.exit(main())
