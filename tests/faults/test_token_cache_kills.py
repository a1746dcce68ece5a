"""Builders of a token cache are killed at every operation, or run at once: what is found is whole, and nobody fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def _answer(repository_root: Path, tmp_path: Path, what: str) -> dict[str, Any]:
    program = repository_root / "tests" / "faults" / "cache_children.py"
    command = [sys.executable, str(program), what, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_token_cache_builder_killed_at_any_operation_leaves_a_whole_entry_or_none(
    repository_root: Path, tmp_path: Path
) -> None:
    """Before each operation and in the middle of each write; the next start has every record, and so has another."""
    answer = _answer(repository_root, tmp_path, "kill")
    assert answer["faults"] == []
    assert answer["operations"] > 25
    # Only operations without a middle let the builder live, where it was to die in the middle of them.
    assert answer["survivors"] < answer["operations"]


def test_token_cache_several_processes_and_a_deletion_at_once_share_it(repository_root: Path, tmp_path: Path) -> None:
    """Each has all records whoever is first, and one whole entry is left."""
    assert _answer(repository_root, tmp_path, "race")["faults"] == []
