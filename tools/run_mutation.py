"""Mutation testing with cosmic-ray: changes one thing of a module at a time, and counts how often its tests notice.

The modules, their tests and the least share that must be noticed stand in ``pyproject.toml`` (``tool.codex-mutation``).
cosmic-ray changes files where they lie, so it works on a copy of the tree in ``.cache/mutants``; the sessions and the
report lie there too. A session that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tool_environments import COSMIC_RAY
from tracked_files import report, tracked_files

PLACE = Path(".cache") / "mutants"
# A mutant that loops for ever is noticed by the clock: this many times what the tests take, and not below the floor.
TIMEOUT_FACTOR = 4
TIMEOUT_FLOOR_SECONDS = 30.0


@dataclass(frozen=True)
class MutatedModule:
    """A module, the tests that hold it, and the least percentage of mutants that they must notice."""

    path: str
    tests: tuple[str, ...]
    least_percent: float


@dataclass(frozen=True)
class MutationResult:
    """What became of the mutants of a module; ``survivors`` are the changes that no test noticed."""

    module: MutatedModule
    killed: int
    survivors: tuple[str, ...]
    unfinished: int

    @property
    def total(self) -> int:
        """How many mutants there are."""
        return self.killed + len(self.survivors) + self.unfinished

    @property
    def percent(self) -> float:
        """The share that was noticed."""
        return 100 * self.killed / self.total if self.total else 0.0


def read_modules(project: str) -> list[MutatedModule]:
    """Return the modules that the text of pyproject.toml names.

    Raises
    ------
    ValueError
        If it names none, or one without tests or a share between 0 and 100.
    """
    entries = tomllib.loads(project).get("tool", {}).get("codex-mutation", {}).get("module", [])
    modules = [MutatedModule(one["path"], tuple(one["tests"]), float(one["least_percent"])) for one in entries]
    if not modules or any(not one.tests or not 0 < one.least_percent <= 100 for one in modules):
        raise ValueError("[[tool.codex-mutation.module]] needs path, tests, and least_percent between 0 and 100")
    return modules


def result_of(module: MutatedModule, dump: str) -> MutationResult:
    """Return the result that ``cosmic-ray dump`` tells, one JSON pair a line: what was changed, and what came of it.

    Raises
    ------
    ValueError
        If a line is no such pair.
    """
    killed, unfinished, survivors = 0, 0, []
    for line in dump.splitlines():
        try:
            work, result = json.loads(line)
            mutation = work["mutations"][0]
            # A change that makes no program (incompetent) is noticed by anybody who imports it.
            outcome = None if result is None else (result["worker_outcome"], result["test_outcome"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"cosmic-ray's dump cannot be read: {line[:80]!r}") from error
        if outcome is not None and outcome[0] == "normal" and outcome[1] in ("killed", "incompetent"):
            killed += 1
        elif outcome is not None and outcome[0] == "normal":
            place = f"{module.path}:{mutation['start_pos'][0]}"
            survivors.append(f"{place}: {mutation['operator_name'].removeprefix('core/')}\n{result['diff']}")
        else:
            unfinished += 1
    return MutationResult(module, killed, tuple(sorted(survivors)), unfinished)


def problems_of(results: Sequence[MutationResult]) -> list[str]:
    """Return the modules whose tests notice too little, and those that were not measured."""
    problems = []
    for result in results:
        if not result.total:
            problems.append(f"{result.module.path}: no mutant was made")
        elif result.unfinished:
            problems.append(f"{result.module.path}: {result.unfinished} of {result.total} mutants were not tried")
        elif result.percent < result.module.least_percent:
            problems.append(
                f"{result.module.path}: {result.percent:.1f} % noticed, {result.module.least_percent:g} % are asked for"
            )
    return problems


def report_text(results: Sequence[MutationResult]) -> str:
    """Return the short report: a table, then each survivor."""
    lines = ["# Mutation testing", "", "| module | mutants | noticed | asked for |", "|---|---|---|---|"]
    for result in results:
        lines.append(
            f"| {result.module.path} | {result.total} | {result.percent:.1f} % | {result.module.least_percent:g} % |"
        )
    for result in results:
        lines += ["", f"## Not noticed in {result.module.path}: {len(result.survivors)}"]
        for survivor in result.survivors:
            lines += ["", "```diff", survivor.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def copy_tree(root: Path) -> Path:
    """Copy the files of the checkout to where they may be changed, and return that place."""
    tree = root / PLACE / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for file in tracked_files(root):
        target = tree / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    # The tests ask git which files there are.
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    return tree


def mutate(module: MutatedModule, root: Path, tree: Path, program: Path) -> MutationResult:
    """Try every mutant of a module and return what came of them.

    Raises
    ------
    ValueError
        If the tests fail without any change, or cosmic-ray fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    tests = [sys.executable, "-m", "pytest", "-q", "-x", *module.tests]

    def call(command: Sequence[str]) -> str:
        answer = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            said = (answer.stdout + answer.stderr).strip()[-600:]
            raise ValueError(f"{Path(command[0]).name} exits with {answer.returncode}: {said}")
        return answer.stdout

    began = time.monotonic()
    call(tests)
    timeout_seconds = max(TIMEOUT_FLOOR_SECONDS, TIMEOUT_FACTOR * (time.monotonic() - began))
    settings = (
        f"[cosmic-ray]\nmodule-path = [{json.dumps(module.path)}]\ntimeout = {timeout_seconds:.0f}.0\n"
        f"excluded-modules = []\ntest-command = {json.dumps(shlex.join(tests))}\n\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    name = hashlib.sha256("\0".join([module.path, *module.tests]).encode())
    for one in (module.path, *module.tests):
        name.update((tree / one).read_bytes() if (tree / one).is_file() else b"")
    # A session belongs to these very files: a changed test begins another one.
    stem = root / PLACE / f"{Path(module.path).stem}-{name.hexdigest()[:12]}"
    configuration, session = stem.with_suffix(".toml"), stem.with_suffix(".sqlite")
    configuration.write_text(settings, encoding="utf-8")
    if not session.is_file():
        call([str(program), "init", str(configuration), str(session)])
    call([str(program), "exec", str(configuration), str(session)])
    return result_of(module, call([str(program), "dump", str(session)]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Mutate the modules, write the report and return the exit code."""
    parser = argparse.ArgumentParser(description="Mutation testing of the modules whose faults cost most; takes hours.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--module", action="append", help="only this one (a path as in pyproject.toml)")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    try:
        modules = read_modules((root / "pyproject.toml").read_text(encoding="utf-8"))
        if chosen.module:
            modules = [one for one in modules if one.path in chosen.module]
        if len(modules) < len(set(chosen.module or ())) or not modules:
            raise ValueError("--module names a module that pyproject.toml does not")
        program = COSMIC_RAY.ensure(root)
        tree = copy_tree(root)
        results = []
        for module in modules:
            print(f"{module.path} …", flush=True)
            results.append(mutate(module, root, tree, program))
            print(f"{module.path}: {results[-1].killed} of {results[-1].total} noticed", flush=True)
    except (OSError, ValueError, KeyError, TypeError, subprocess.CalledProcessError) as error:
        return report([f"no mutation testing: {error}"], "the run of cosmic-ray")
    file = root / PLACE / "report.md"
    file.write_text(report_text(results), encoding="utf-8")
    return report(problems_of(results), f"{len(results)} modules; the report is {file.relative_to(root)}")


if __name__ == "__main__":
    sys.exit(main())
