"""Data files that are written to while they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.data.readers.jsonl import JsonlFile
from codex_ml.errors import DataError

ROW = b'{"text": "x"}\n'


@pytest.mark.parametrize("more", [ROW * 50_000, ROW, b""], ids=["much", "little", "nothing"])
def test_jsonl_file_that_grows_while_it_is_read_is_refused(write_jsonl: Callable[..., Path], more: bytes) -> None:
    """At once where it grows beyond what it was, at the end where that was read already."""
    path = write_jsonl(ROW * 50_000)
    seen: list[int] = []
    lines = JsonlFile(path).raw_lines()
    next(lines)
    with path.open("ab") as handle:
        handle.write(more)
    if not more:
        assert sum(1 for _ in lines) == 49_999
        return
    with pytest.raises(DataError, match=r"data\.jsonl changed while it was read"):
        seen.extend(line[0] for line in lines)
    assert len(seen) < 55_000


def test_jsonl_file_that_is_cut_while_it_is_read_is_refused(write_jsonl: Callable[..., Path]) -> None:
    """What was read is no file that exists."""
    path = write_jsonl(ROW * 50_000)
    lines = JsonlFile(path).raw_lines()
    next(lines)
    with path.open("r+b") as handle:
        handle.truncate(len(ROW) * 40_000)
    with pytest.raises(DataError, match="changed while it was read"):
        list(lines)
