"""Every library that the package imports is declared in pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from hashed_lock import canonical

# A part of pydantic, which pins its exact version.
PARTS = {"pydantic-core": "pydantic"}


def imported_modules(file: Path) -> set[str]:
    """Return the top-level modules that a file imports, by statement or by `importlib.import_module`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            found |= {str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant)}
    return {name.partition(".")[0] for name in found}


def test_declared_imports_every_library_of_the_package_is_a_declared_dependency(repository_root: Path) -> None:
    """A library that only another dependency brings can disappear with the next version of that one."""
    project = tomllib.loads((repository_root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["serve"], *extras["tracking"], *extras["cuda"]]
    declared = {re.split(r"[\\[<>=!; ]", text)[0].lower() for text in requirements}
    distributions = packages_distributions()
    modules = set().union(*(imported_modules(file) for file in (repository_root / "src").rglob("*.py")))
    missing = {}
    for module in sorted(modules - sys.stdlib_module_names - {"codex_ml"}):
        names = {PARTS.get(canonical(name), canonical(name)) for name in distributions.get(module, [])}
        if names and names.isdisjoint(declared):
            missing[module] = sorted(names)
    assert missing == {}
