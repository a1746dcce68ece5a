"""All output passes through `codex_ml.io.terminal`, which escapes the control characters of untrusted text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# This module writes binary answers to its parent process, not to a terminal.
PROTOCOLS = {"data/splits/check_helper.py"}
PRINTS_ITSELF = {"io/terminal.py"}
FORBIDDEN_CALLS = {
    "print",
    "input",
    *(f"typer.{name}" for name in ("echo", "secho", "confirm", "prompt", "progressbar")),
    *(f"click.{name}" for name in ("echo", "secho", "confirm", "prompt", "progressbar")),
    *(
        f"sys.{stream}.{name}"
        for stream in ("stdout", "stderr", "__stdout__", "__stderr__")
        for name in ("write", "writelines", "buffer.write")
    ),
    "logging.basicConfig",
    "logging.StreamHandler",
    "traceback.print_exc",
    "traceback.print_exception",
}


def prints_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each call that prints without making the text visible."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in FORBIDDEN_CALLS:
            yield node.lineno, name
        # A stream that is passed on can be written to in another place.
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout.buffer", "sys.stderr.buffer"):
            yield node.lineno, ast.unparse(node)


def test_print_paths_source_prints_only_through_the_terminal_module(repository_root: Path) -> None:
    """A new `print` or `typer.echo` anywhere in the package fails here."""
    package = repository_root / "src" / "codex_ml"
    found = [
        f"{file.relative_to(package)}:{line}: {name}"
        for file in sorted(package.rglob("*.py"))
        if str(file.relative_to(package)) not in PROTOCOLS | PRINTS_ITSELF
        for line, name in prints_of(file.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["print('a')", "typer.echo(text)", "import sys\nsys.stderr.write(text)", "sys.stdout.buffer.write(data)"],
)
def test_print_paths_direct_print_is_found(source: str) -> None:
    """The check of the source finds each of these calls."""
    assert list(prints_of(source))
