"""Files of a run may come from a stranger: below runs/ and recipes/ JSON is read only by the bounded reader."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

import codex_ml
from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.monitoring.codex_logging import MAX_LINE_BYTES, read_ndjson
from codex_ml.runs.last_memory import read_last_memory
from codex_ml.runs.layout import create_run
from codex_ml.runs.listing import summarise

_PACKAGE = Path(codex_ml.__file__).parent
_SPARSE_BYTES = 30 << 30


def raw_readers(source: str) -> list[int]:
    """Return the lines that call `json.load` or `json.loads`, or import them by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
        if called and isinstance(node, ast.Attribute) and node.attr in ("load", "loads"):
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            found.append(node.lineno)
    return sorted(found)


def test_raw_readers_planted_calls_are_found() -> None:
    """The search itself sees a call, a reference and an import, and leaves writing alone."""
    planted = "import json\nfrom json import loads\njson.loads(p.read_text())\nmap(json.load, x)\njson.dumps(1)\n"
    assert raw_readers(planted) == [2, 3, 4]


@pytest.mark.parametrize("package", ["runs", "recipes"])
def test_raw_readers_in_packages_that_read_runs_are_none(package: str) -> None:
    """`codex_ml.io.untrusted` bounds size and nesting; `json.loads` bounds neither."""
    files = sorted((_PACKAGE / package).rglob("*.py"))
    assert len(files) > 10
    assert {file.name: lines for file in files if (lines := raw_readers(file.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "content", [b"[" * 9000 + b"\n", b"[" * 200_000, b'{"step": 1e999}\n', b"[" * 70 + b"]" * 70 + b"\n"]
)
def test_metrics_that_are_garbage_break_neither_list_nor_death_note(content: bytes, tmp_path: Path) -> None:
    """One damaged run must not hide the others."""
    layout, record = create_run(tmp_path, "a", datetime(2026, 1, 1, tzinfo=UTC), Storage())
    layout.metrics.write_bytes(content)
    assert summarise(layout, record).steps is None
    assert read_last_memory(layout.metrics) is None


@pytest.mark.parametrize("content", [b"[" * 9000 + b"\n", b"x" * (MAX_LINE_BYTES + 1), None])
def test_read_ndjson_line_of_a_stranger_is_refused(content: bytes | None, tmp_path: Path) -> None:
    """Depth and length are bounded; a file that seems to hold 30 GB (None) is given up at its first line."""
    log = tmp_path / "metrics.ndjson"
    with log.open("wb") as handle:
        handle.write(b'{"step": 1}\n' + (content or b""))
        if content is None:
            handle.truncate(_SPARSE_BYTES)
    lines = read_ndjson(log)
    assert next(lines) == {"step": 1}
    with pytest.raises(UserError, match=r"metrics.ndjson:2: (not a JSON object|longer than)"):
        next(lines)
