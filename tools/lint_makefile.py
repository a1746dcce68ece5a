"""Lints codex.mk: every target is declared, explained and short, and make itself has nothing to warn about.

Does what checkmake does (which needs Go) and what this project asks besides. See docs/decisions/0007-the-gate.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tracked_files import NothingToCheckError, report, tracked_files

RULE = re.compile(r"^(?P<names>[^\s#:=][^#:=]*):(?!=)(?P<rest>.*)$")
REQUIRED_TARGETS = frozenset({"help", "test", "lint", "quality", "clean"})
LONGEST_RECIPE_LINES = 6


def problems_in_makefile(text: str, name: str = "codex.mk") -> list[str]:
    """Return what is wrong with the text of a makefile."""
    problems = []
    targets: dict[str, int] = {}
    phony: set[str] = set()
    recipe = 0
    in_rule = False
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{name}:{number}"
        if line != line.rstrip():
            problems.append(f"{place}: spaces at the end of the line")
        if line.startswith("\t"):
            recipe += 1
            if not in_rule:
                problems.append(f"{place}: a recipe line that belongs to no target")
            if recipe == LONGEST_RECIPE_LINES + 1:
                problems.append(f"{place}: a recipe of more than {LONGEST_RECIPE_LINES} lines: make it a script")
            if "$(MAKE)" in line:
                problems.append(f"{place}: make calls itself: name the other target as a prerequisite")
            continue
        if line.startswith(" ") and in_rule:
            problems.append(f"{place}: a recipe line begins with a tab")
        if (rule := RULE.match(line)) is None:
            in_rule = in_rule and (not line or line.startswith((" ", "#")))
            continue
        recipe, in_rule = 0, True
        names = rule["names"].split()
        if names == [".PHONY"]:
            phony.update(rule["rest"].split("#")[0].split())
            continue
        for target in names:
            if "$" in target or "/" in target:
                continue
            if target in targets:
                problems.append(f"{place}: {target} stands in line {targets[target]} already")
            targets.setdefault(target, number)
            if "## " not in rule["rest"]:
                problems.append(f"{place}: {target} has no '## …' that make help could show")
    problems.extend(f"{name}:{targets[target]}: {target} is not .PHONY" for target in sorted(set(targets) - phony))
    problems.extend(f"{name}: .PHONY names {target}, which is no target" for target in sorted(phony - set(targets)))
    problems.extend(f"{name}: there is no target {target}" for target in sorted(REQUIRED_TARGETS - set(targets)))
    return problems


def targets_of(text: str) -> list[str]:
    """Return the targets that ``.PHONY`` names."""
    lines = [rule["rest"] for line in text.split("\n") if (rule := RULE.match(line)) and rule["names"] == ".PHONY"]
    return [target for line in lines for target in line.split("#")[0].split()]


def problems_with_tests(text: str, root: Path) -> list[str]:
    """Return the directories of tests that a recipe names and a fresh clone has not; git keeps no empty directory."""
    problems = []
    for directory in sorted(set(re.findall(r"tests/\w+", text))):
        try:
            tracked_files(root, f"{directory}/*.py")
        except NothingToCheckError:
            problems.append(f"codex.mk: {directory} holds no test")
    return problems


def warnings_of_make(root: Path, targets: Sequence[str]) -> list[str]:
    """Return what GNU make says when it reads each target without running it: parse errors, undefined variables."""
    command = ["make", "--dry-run", "--always-make", "--warn-undefined-variables", *targets]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if answer.returncode and not answer.stderr:
        return [f"make exits with {answer.returncode}"]
    return sorted(set(answer.stderr.splitlines()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Lint the makefile of a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Lints codex.mk.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    root = parser.parse_args(arguments).root
    text = (root / "codex.mk").read_text(encoding="utf-8")
    targets = targets_of(text)
    problems = [*problems_in_makefile(text), *problems_with_tests(text, root), *warnings_of_make(root, targets)]
    return report(problems, f"codex.mk ({len(targets)} targets)")


if __name__ == "__main__":
    sys.exit(main())
