"""No module of the toolkit imports an optional package while it is itself imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import codex_ml

PACKAGE = Path(codex_ml.__file__).parent
OPTIONAL = frozenset({"mlflow", "pynvml", "wandb", "tensorboard", "torch.utils.tensorboard"})


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what a module imports when it is imported: not inside functions, and not for type checkers only."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (name.name for name in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from imported_at_once(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody"):
                yield from imported_at_once(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                yield from imported_at_once(handler.body)


def is_optional(module: str) -> bool:
    """Tell whether a module belongs to an optional package."""
    return any(module == name or module.startswith(f"{name}.") for name in OPTIONAL)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import mlflow", True),
        ("from mlflow.entities import Metric", True),
        ("try:\n    import wandb\nexcept ImportError:\n    wandb = None", True),
        ("class A:\n    import pynvml", True),
        ("def f():\n    import mlflow", False),
        ("if TYPE_CHECKING:\n    import mlflow", False),
        ("import mlflowish", False),
    ],
)
def test_imported_at_once_sees_what_it_is_for(source: str, expected: bool) -> None:
    """The look itself is right: a check that sees nothing would pass for ever."""
    assert any(is_optional(name) for name in imported_at_once(ast.parse(source).body)) is expected


def test_modules_of_the_toolkit_import_no_optional_package() -> None:
    """Whoever leaves an extra away can import every module."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    found = {
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in files
        for name in imported_at_once(ast.parse(file.read_text("utf-8")).body)
        if is_optional(name)
    }
    assert found == set()
