"""The page on faults promises a test for each: they are there, under the very name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_faults_page_every_row_names_tests_that_exist(repository_root: Path) -> None:
    """A test that was renamed or removed takes its promise with it."""
    page = (repository_root / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| fault |")]
    assert len(rows) > 25
    for row in rows:
        named = _NAMED.findall(row)
        assert named, row
        for file, name in named:
            tree = ast.parse((repository_root / file).read_text(encoding="utf-8"))
            functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"{file} has no {name}"
