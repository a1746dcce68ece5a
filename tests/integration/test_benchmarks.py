"""The benchmarks run; what they measure is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.full("benchmarks")
@pytest.mark.slow
def test_split_throughput_small_file_gives_every_figure(repository_root: Path) -> None:
    """One megabyte, once, without the other library: a figure for each way to split."""
    command = [sys.executable, "benchmarks/split_throughput.py", "--megabytes", "1", "--repeats", "1", "--json"]
    answer = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures.pop("megabytes") >= 1
    assert len(figures) == 3
    assert all(set(cost) == {"wall_seconds", "cpu_seconds", "peak_bytes"} for cost in figures.values())
    assert all(value > 0 for cost in figures.values() for value in cost.values())


@pytest.mark.full("benchmarks")
@pytest.mark.slow
def test_token_cache_small_file_gives_every_figure(repository_root: Path) -> None:
    """Two megabytes: the second start takes what the first one left."""
    command = [sys.executable, "benchmarks/token_cache.py", "--megabytes", "2", "--json"]
    answer = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "taken from the cache" in answer.stderr
    figures = json.loads(answer.stdout)
    assert list(figures) == ["a file of 0.1 MB", "first start", "second start"]
    assert all(value > 0 for cost in figures.values() for value in cost.values())


@pytest.mark.full("benchmarks")
@pytest.mark.slow
def test_serve_attack_few_seconds_gives_every_figure(repository_root: Path) -> None:
    """The mixed attack on a valid model: the well-behaved client gets right answers, each attack an outcome."""
    options = ["--minutes", "0.15", "--phases", "a", "--memory-share", "100"]
    command = [sys.executable, "benchmarks/serve_attack.py", *options]
    answer = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    figures = json.loads(answer.stdout)["phases"]["a"]
    assert figures["well_behaved"]["asked"] > 0, answer.stderr
    assert (figures["well_behaved"]["wrong"], figures["exit_code"]) == (0, 0), answer.stderr
    assert figures["attacks"]["idle_connection"]["opened"] >= 300
    assert set(figures["attacks"]["foreign_origin"]) == {"403"}
    assert set(figures["attacks"]["wrong_content_type"]) == {"415"}
