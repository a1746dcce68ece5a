"""`codex-ml data split` from the outside: what it prints, what it refuses, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import app


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of 200 records with 25 prompts and 50 duplicates."""
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"p{number % 25}", "completion": str(number % 150)} for number in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _split(source: Path, *arguments: str):
    return CliRunner().invoke(app, ["data", "split", str(source), "--out", str(source.parent / "out"), *arguments])


def test_data_split_report_names_every_split_and_the_outputs(source: Path) -> None:
    """Counts, shares, duplicates and groups on standard output; the last line says where the files lie."""
    answer = _split(source, "--ratios", "0.6,0.2,0.2", "--seed", "7", "--group-by", "prompt")
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["train", "valid", "test"]
    assert "data.jsonl, 200 records" in answer.stdout
    assert "exact duplicates of another record: 50 (none is in two splits)" in lines
    assert "groups by prompt: 25 (none is in two splits)" in lines
    assert "seed: 7" in lines
    assert lines[-1] == f"outputs: {source.parent / 'out'}"


def test_data_split_json_is_the_manifest_and_where_it_lies(source: Path) -> None:
    """What a machine reads is what stands in split.json, and whether something was written."""
    arguments = ("--ratios", "0.7,0.3", "--names", "a, b", "--exact-sizes", "--json")
    answer = _split(source, *arguments)
    assert answer.exit_code == 0, answer.stderr
    printed = json.loads(answer.stdout)
    assert printed.pop("created") is True
    assert printed.pop("outputs") == str(source.parent / "out")
    assert printed == json.loads((source.parent / "out" / "split.json").read_text())
    assert printed["split"]["names"] == ["a", "b"]
    assert abs(printed["splits"]["a"]["records"] - 140) <= 2
    assert json.loads(_split(source, *arguments).stdout)["created"] is False


def test_data_split_again_says_so_and_another_is_refused(source: Path) -> None:
    """The same split twice is fine; another one into the same directory is a mistake."""
    assert _split(source).exit_code == 0
    before = {file.name: file.stat().st_mtime_ns for file in (source.parent / "out").iterdir()}
    again = _split(source)
    assert again.exit_code == 0
    assert "the same split is there already; nothing was written" in again.stdout
    other = _split(source, "--seed", "1")
    assert other.exit_code == 2
    assert "exists and holds something else" in other.stderr
    assert {file.name: file.stat().st_mtime_ns for file in (source.parent / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ratios", "0.9,0.9,0.1"], "sum to 1.9, not to 1"),
        (["--ratios", "1.1,-0.1,0"], "below 0"),
        (["--ratios", "0.9,0.1"], "2 shares instead of 3"),
        (["--ratios", "most,few"], "not a list of numbers"),
        (["--ratios", "nan,0.5,0.5"], "not all are numbers"),
        (["--ratios", "inf,0,0"], "not all are numbers"),
        (["--ratios", ""], "not a list of numbers"),
        (["--names", "train,../../valid,test"], "cannot name a split"),
        (["--names", "train,train,test"], "named twice"),
        (["--group-by", "topic"], "the group key 'topic' is missing"),
        (["--group-by", ""], "--group-by"),
        (["--ratios", "0.999998,0.000001,0.000001"], "no record falls into the split 'valid'"),
        (["--column", "prompt=completion"], "nothing asks for it"),
        (["--column", "prompt", "--group-by", "prompt"], "a mapping has two sides"),
        (["--column", "promt=completion", "--group-by", "prompt"], "'promt'"),
    ],
)
def test_data_split_wrong_option_is_one_error_and_nothing_left(source: Path, arguments: list[str], words: str) -> None:
    """Exit code 2, one block that says what to do, no directory."""
    answer = _split(source, *arguments)
    assert answer.exit_code == 2, answer.output
    assert answer.stderr.count("error:") == 1
    assert words in answer.stderr
    assert "fix:" in answer.stderr
    assert answer.stdout == ""
    assert [item.name for item in source.parent.iterdir()] == ["data.jsonl"]


def test_data_split_other_column_names_give_the_prompt(source: Path) -> None:
    """--column names the field that is the prompt, as data.columns does."""
    answer = _split(source, "--group-by", "prompt", "--column", "prompt=completion", "--json")
    assert json.loads(answer.stdout)["groups"] == 150


def test_data_split_table_comes_out_as_lines_of_json(tmp_path: Path) -> None:
    """Rows are written in the form that stands for their bytes; a packed file as the lines in it."""
    table = tmp_path / "data.csv"
    table.write_text("prompt,completion\n" + "".join(f"p{number},007\n" for number in range(100)), encoding="utf-8")
    answer = _split(table, "--ratios", "0.5,0.3,0.2", "--json")
    assert answer.exit_code == 0, answer.stderr
    lines = [line for name in ("train", "valid", "test") for line in (tmp_path / "out" / f"{name}.jsonl").open()]
    assert sorted(lines) == sorted(f'{{"completion":"007","prompt":"p{number}"}}\n' for number in range(100))


def test_data_split_longest_line_is_an_option(source: Path) -> None:
    """As data.max_line_bytes in a config."""
    answer = _split(source, "--max-line-bytes", "20")
    assert answer.exit_code == 2
    assert "data.jsonl:1: the line is longer than 20 bytes" in answer.stderr
