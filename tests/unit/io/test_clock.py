"""One clock and one form of time for every record."""

from __future__ import annotations

import ast
from datetime import datetime, timedelta, timezone
from pathlib import Path

import codex_ml
from codex_ml.io.clock import format_time, utc_now


def test_format_time_other_zone_is_given_in_utc() -> None:
    """A moment in another zone is written in UTC."""
    moment = datetime(2026, 11, 3, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2026-11-03T10:00:00.000000Z"


def test_utc_now_knows_its_zone() -> None:
    """A moment without a zone could not be written."""
    assert utc_now().utcoffset() == timedelta(0)


def test_clock_no_other_module_defines_its_own() -> None:
    """Two forms of one time would drift apart."""
    source = Path(codex_ml.__file__).parent
    owners = {
        (node.name, file.relative_to(source).as_posix())
        for file in source.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in ("utc_now", "format_time")
    }
    assert owners == {("utc_now", "io/clock.py"), ("format_time", "io/clock.py")}
