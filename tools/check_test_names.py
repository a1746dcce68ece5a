"""Tests are named and placed as agreed: ``test_<behavior>_<condition>_<expected>``, a docstring, beside its module.

The tree under ``tests/unit`` mirrors the code: ``tests/unit/<package>/test_<module>.py`` belongs to
``src/codex_ml/<package>/<module>.py``, and `tools`, `tracking`, `scripts` and `examples` to the folders of that name. A
test file may add a word (``test_<module>_property.py``).
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tracked_files import report, tracked_files

# A behaviour, a condition and what is expected: three words at the least.
NAME = re.compile(r"test(_[a-z0-9]+){3,}")
BESIDE_THE_PACKAGE = ("tools", "tracking", "scripts", "examples")
# Tests of what is no single module: data that is shipped, the package as a whole.
OF_OTHER_THINGS = {
    "tests/unit/test_optional_imports.py": "src/codex_ml",
    "tests/unit/test_error_codes.py": "src/codex_ml",
    "tests/unit/test_public_api.py": "src/codex_ml",
    "tests/unit/config/test_default_tree.py": "configs",
    "tests/unit/safety/test_default_policy.py": "configs/safety/policies/default.yaml",
}


def problems_of_functions(file: Path) -> list[str]:
    """Return what is wrong with the names and docstrings of the tests of one file."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    problems = []
    seen: dict[str, int] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
            continue
        place = f"{file}:{node.lineno}: {node.name}"
        if not NAME.fullmatch(node.name):
            problems.append(f"{place}: say test_<behavior>_<condition>_<expected>")
        if node.name in seen:
            problems.append(f"{place}: the name stands in line {seen[node.name]} already and hides that test")
        seen.setdefault(node.name, node.lineno)
        if not (ast.get_docstring(node) or "").strip():
            problems.append(f"{place}: say in one line what it shows")
    return problems


def misplaced(file: Path, root: Path) -> str | None:
    """Return what is wrong with the place of a test file under ``tests/unit``, or None."""
    other = OF_OTHER_THINGS.get(file.relative_to(root).as_posix())
    if other is not None:
        return None if (root / other).exists() else f"{file}: {other} is gone"
    parts = file.relative_to(root / "tests" / "unit").parts
    folder = root / parts[0] if parts[0] in BESIDE_THE_PACKAGE else root / "src" / "codex_ml" / parts[0]
    if len(parts) == 1:
        folder = root / "src" / "codex_ml"
    words = file.stem.removeprefix("test_").split("_")
    candidates = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    folders = [folder.joinpath(*parts[1:-1])]
    if parts[0] in BESIDE_THE_PACKAGE and (package := root / "src" / "codex_ml" / parts[0]).is_dir():
        folders.append(package.joinpath(*parts[1:-1]))
    for place in folders:
        for name in candidates:
            if (place / f"{name}.py").is_file() or (place / name).is_dir():
                return None
    return f"{file}: no module {' or '.join(str(place.relative_to(root)) for place in folders)}/{candidates[0]}.py"


def problems_in(files: Iterable[Path], root: Path) -> list[str]:
    """Return what is wrong with the test files of a checkout."""
    problems = []
    for file in files:
        if not file.name.startswith("test_"):
            continue
        problems.extend(problems_of_functions(file))
        if file.is_relative_to(root / "tests" / "unit") and (problem := misplaced(file, root)) is not None:
            problems.append(problem)
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the tests of a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Checks names, docstrings and places of the tests.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    root = parser.parse_args(arguments).root
    files = tracked_files(root, "tests/*.py")
    return report(problems_in(files, root), f"{len(files)} test files")


if __name__ == "__main__":
    sys.exit(main())
