"""`codex-ml data stats` on real sets: duplicates and leaks with the figures that others counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def _stats(command_line, directory: Path, *files: Path, **environment: str) -> dict:
    answer = command_line.run("data", "stats", "--json", *map(str, files), directory=directory, **environment)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.real_data
def test_data_stats_wwdc25_duplicates_and_leaks_are_the_known_ones(
    isolated_command_line, tmp_path: Path, real_data: Path
) -> None:
    """437 rows of train repeat another, 16 rows of valid stand in train, 48 by their prompt."""
    folder = real_data / "wwdc25_prompt_completion"
    found = _stats(isolated_command_line, tmp_path, folder / "train.jsonl", folder / "valid.jsonl")
    train, valid = found["files"]
    assert (train["records"], valid["records"]) == (1800, 144)
    assert train["exact_duplicates"]["records"] == 437
    (overlap,) = found["overlaps"]
    assert (overlap["file"], overlap["in"]) == ("valid.jsonl", "train.jsonl")
    assert (overlap["records"], overlap["records_by_prompt"]) == (16, 48)
    assert len(found["warnings"]) == 3
    # Golden: nothing else is known of these, but they must come out the same on every run and machine.
    assert (train["near_duplicates"]["records"], overlap["near"]["records"]) == (111, 18)


@pytest.mark.real_data
def test_data_stats_e2e_nlg_prompts_are_the_known_ones(command_line, tmp_path: Path, real_data: Path) -> None:
    """547 distinct prompts in 4,672 rows, 151 of which repeat another."""
    found = _stats(command_line, tmp_path, real_data / "e2e_nlg" / "devset_prompt_completion.jsonl")
    (file,) = found["files"]
    assert (file["records"], file["distinct_prompts"], file["exact_duplicates"]["records"]) == (4672, 547, 151)


def test_data_stats_anywhere_gives_the_same_figures(isolated_command_line, tmp_path: Path) -> None:
    """For any seed of Python's hashes: which records are near, and which of several is named."""
    words = [f"w{number}" for number in range(40)]
    rows = [{"text": " ".join([*words[: 30 + number % 10], f"x{number % 50}"])} for number in range(200)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = [_stats(isolated_command_line, tmp_path, path, path, PYTHONHASHSEED=seed) for seed in ("0", "1")]
    assert found[0] == found[1]
    assert found[0]["files"][0]["near_duplicates"]["records"] > 0
