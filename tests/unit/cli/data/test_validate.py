"""`codex-ml data validate` from the outside: what it prints, its exit codes, files that are none."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import app

GOOD = '{"prompt": "a", "completion": "b"}\n'


def _validate(*arguments: str | Path):
    return CliRunner().invoke(app, ["data", "validate", *map(str, arguments)])


def test_data_validate_sound_files_are_reported_and_accepted(tmp_path: Path) -> None:
    """One line a file, exit code 0, and the same as JSON."""
    for name in ("a.jsonl", "b c=(1), é.jsonl"):
        (tmp_path / name).write_text(GOOD * 3 + "\n", encoding="utf-8")
    answer = _validate(*sorted(tmp_path.iterdir()))
    assert answer.exit_code == 0, answer.stderr
    assert "valid: a.jsonl: 3 of 3 records are valid, format prompt_completion" in answer.stdout
    assert answer.stdout.count("empty lines: 1") == 2
    answer = _validate(tmp_path / "a.jsonl", "--json")
    found = json.loads(answer.stdout)
    assert found["valid"]
    assert found["files"][0]["records"] == {"read": 3, "valid": 3}


def test_data_validate_faulty_files_are_read_to_the_end_and_refused(tmp_path: Path) -> None:
    """The report says how many, the error block where; exit code 2; no content in either."""
    file = tmp_path / "a.jsonl"
    file.write_text(GOOD + '{"prompt": "SECRET"}\nSECRET\n' + GOOD + '{"prompt": "m@example.com", "completion": "b"}\n')
    (tmp_path / "b.jsonl").write_bytes(b"\x1f\x8b")
    answer = _validate(file, tmp_path / "b.jsonl", tmp_path / "absent.jsonl")
    assert answer.exit_code == 2
    assert "invalid: a.jsonl: 3 of 5 records are valid" in answer.stdout
    assert "  problems: bad_json 1, bad_shape 1" in answer.stdout
    assert "  findings by field: prompt 1\n    line 5: email in prompt at 0, length 13\n" in answer.stdout
    assert "invalid: b.jsonl: not read to its end" in answer.stdout
    assert answer.stderr.startswith("error: a.jsonl:2: key 'completion' is missing")
    assert "the first of 4 problems" in answer.stderr
    assert "SECRET" not in answer.output
    assert "example.com" not in answer.output


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "named pipe"),
        (Path.mkdir, "is a directory"),
        (_socket, "socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to(path), "cannot be read|leads to no file|levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere.jsonl"), "leads to no file"),
    ],
    ids=["pipe", "directory", "socket", "device", "loop", "dangling"],
)
def test_data_validate_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    """Nothing is waited for, and nothing without an end is read."""
    for ending in ("jsonl", "jsonl.gz", "csv", "parquet"):
        path = tmp_path / f"d.{ending}"
        make(path)
        answer = _validate(path)
        assert answer.exit_code == 2
        assert any(word in answer.stderr for word in words.split("|")), answer.stderr


def test_data_validate_longest_line_is_an_option(tmp_path: Path) -> None:
    """As in a config; the bound is named in the answer."""
    (tmp_path / "a.jsonl").write_text(GOOD)
    answer = _validate(tmp_path / "a.jsonl", "--max-line-bytes", "10")
    assert answer.exit_code == 2
    assert "a.jsonl:1: the line is longer than 10 bytes (data.max_line_bytes)" in answer.stderr
