"""Runs the parts of `make test-full` one by one, and skips those that have passed on this very tree.

A part that fails does not stop the others. What has passed is recorded with a digest of the tree, so an interrupted run
continues where it stopped, and any change of a file makes every part run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tested_tree import tree_digest

PASSED = Path(".cache") / "gates" / "full-tests.json"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-n", "logical", "--maxprocesses=4", "--dist=worksteal")
# Values of the option --full of tests/conftest.py; the quick ones first.
TEST_PARTS = ("wheel", "benchmarks", "data", "resume", "demo", "power", "gates", "faults", "properties", "kills")
PARTS = {part: (*PYTEST, f"--full={part}") for part in TEST_PARTS} | {"images": ("make", "image-test")}


def run_parts(
    root: Path, parts: Sequence[str], run: Callable[[Sequence[str]], int], emit: Callable[[str], None]
) -> list[str]:
    """Run the parts that have not passed on this tree.

    Parameters
    ----------
    root : Path
        The checkout.
    parts : sequence of str
        Names in `PARTS`.
    run : callable
        Runs a command in the checkout and returns its exit code.
    emit : callable
        Prints a line.

    Returns
    -------
    list of str
        The parts that failed.
    """
    tree = tree_digest(root)
    passed = _passed(root, tree)
    failed = []
    for part in parts:
        if part in passed:
            emit(f"{part}: passed on this tree before, in {passed[part]:.0f} s")
            continue
        started = time.monotonic()
        code = run(PARTS[part])
        seconds = time.monotonic() - started
        emit(f"{part}: {'passed' if code == 0 else f'failed with exit code {code}'} in {seconds:.0f} s")
        if code != 0:
            failed.append(part)
        elif tree_digest(root) == tree:
            passed[part] = seconds
            (root / PASSED).parent.mkdir(parents=True, exist_ok=True)
            (root / PASSED).write_text(json.dumps({"tree": tree, "passed": passed}), encoding="utf-8")
    return failed


def _passed(root: Path, tree: str) -> dict[str, float]:
    """Return the seconds of the parts that have passed on a tree."""
    try:
        recorded = json.loads((root / PASSED).read_text(encoding="utf-8"))
        return dict(recorded["passed"]) if recorded["tree"] == tree else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named parts, or all of them; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Run the exhaustive tests in parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to run, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--root", type=Path, default=Path(), help="checkout to test (default: working directory)")
    chosen = parser.parse_args(arguments)
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r} (expected one of {', '.join(PARTS)})")
    root = chosen.root.resolve()
    failed = run_parts(
        root,
        chosen.parts or list(PARTS),
        lambda command: subprocess.run(command, cwd=root, check=False).returncode,
        lambda line: print(line, flush=True),
    )
    print(f"failed: {', '.join(failed)}" if failed else "every part has passed on this tree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
