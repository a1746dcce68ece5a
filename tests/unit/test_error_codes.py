"""The codes of errors are stable: programs of users and our own tests rely on them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FROZEN = Path(__file__).with_name("error_codes.txt")


def codes_in(package: Path) -> Iterator[str]:
    """Yield each literal that is passed as ``code`` in the package, without the lower-case ones of the HTTP API."""
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.keyword) or node.arg != "code" or not isinstance(node.value, ast.Constant):
                continue
            if isinstance(node.value.value, str) and not node.value.value.islower():
                yield node.value.value


def test_error_codes_of_the_package_are_the_frozen_ones(repository_root: Path) -> None:
    """Add a new code to error_codes.txt. Removing or renaming one breaks programs of users: keep the old name."""
    frozen = FROZEN.read_text("utf-8").split()
    assert frozen == sorted(set(frozen))
    assert sorted(set(codes_in(repository_root / "src" / "codex_ml"))) == frozen


def test_error_codes_are_upper_case_words_with_an_area() -> None:
    """The first word names the area."""
    assert [code for code in FROZEN.read_text("utf-8").split() if not re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", code)] == []
