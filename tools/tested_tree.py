"""Remembers that every test has passed on this very tree, so that the gate behind `make test` need not run them again.

The tree is every file under version control and every new one, with the packages and the Python of the environment.
`begin` stands before the tests and `finish` behind them, and counts only when nothing has changed between.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from installed_packages import installed_packages
from tracked_files import tracked_files

BEGUN = Path(".cache") / "gates" / "tests-begun.json"
PASSED = Path(".cache") / "gates" / "tests-passed.json"
# Options from outside may leave tests out.
NARROWING = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def tree_digest(root: Path) -> str:
    """Return a digest of the files of a checkout and of the environment that tests them."""
    digest = hashlib.sha256()
    for file in tracked_files(root):
        name = file.relative_to(root).as_posix().encode()
        content = hashlib.sha256(file.read_bytes()).digest()
        digest.update(len(name).to_bytes(4, "big") + name + bytes([os.access(file, os.X_OK)]) + content)
    packages = sorted(f"{package.name}=={package.version}" for package in installed_packages().values())
    digest.update("\n".join([sys.version, *packages]).encode())
    return digest.hexdigest()


def begin(root: Path, environment: Mapping[str, str]) -> str | None:
    """Note the tree before its tests; return why their result cannot count, or None."""
    (root / PASSED).unlink(missing_ok=True)
    narrowing = [name for name in NARROWING if environment.get(name)]
    if narrowing:
        (root / BEGUN).unlink(missing_ok=True)
        return f"{', '.join(narrowing)} is set and may leave tests out"
    (root / BEGUN).parent.mkdir(parents=True, exist_ok=True)
    (root / BEGUN).write_text(json.dumps({"tree": tree_digest(root)}), encoding="utf-8")
    return None


def finish(root: Path, now: datetime) -> str | None:
    """Note that the tests have passed; return why that does not count, or None."""
    try:
        begun = json.loads((root / BEGUN).read_text(encoding="utf-8"))["tree"]
    except (OSError, ValueError, KeyError, TypeError):
        return "nobody noted the tree before the tests"
    (root / BEGUN).unlink()
    if begun != tree_digest(root):
        return "the tree has changed while its tests ran"
    (root / PASSED).write_text(
        json.dumps({"tree": begun, "passed": now.isoformat(timespec="seconds")}), encoding="utf-8"
    )
    return None


def accepted(root: Path) -> str | None:
    """Return when the tests have passed on this very tree, or None."""
    try:
        noted = json.loads((root / PASSED).read_text(encoding="utf-8"))
        tree, passed = str(noted["tree"]), str(noted["passed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return passed if tree == tree_digest(root) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Note one of the two, say when it does not count, and return 0: a test that has passed stays passed."""
    parser = argparse.ArgumentParser(description="Remembers that every test has passed on this very tree.")
    parser.add_argument("moment", choices=["begin", "finish"], help="before the tests, or behind them")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    why_not = begin(root, os.environ) if chosen.moment == "begin" else finish(root, datetime.now(UTC))
    if why_not is not None:
        print(f"the gate will run the tests itself: {why_not}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
