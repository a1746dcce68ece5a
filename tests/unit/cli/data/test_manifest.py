"""`codex-ml data manifest` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codex_ml.cli.main import app


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a file of three records under an awkward name."""
    path = tmp_path / "mes données, a=b (1).jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n{"text": "c"}\n')
    return path


def _manifest(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "manifest", *map(str, arguments)])


def test_data_manifest_written_unchanged_and_checked_says_which(records: Path) -> None:
    """Three calls, three outcomes; the last line says where the manifest lies."""
    target = records.with_name(records.name + ".manifest.json")
    for arguments, outcome in (
        ((records,), f"offsets: {records}.offsets"),
        ((records,), "size and time of the file are those of its manifest; nothing was written"),
        ((records, "--check"), "the file and its offsets are those of the manifest"),
    ):
        answer = _manifest(*arguments)
        assert answer.exit_code == 0, answer.stderr
        lines = answer.stdout.splitlines()
        assert lines[0].startswith(f"{records.name}: 3 records, {records.stat().st_size} bytes, sha256:")
        assert lines[1:4] == ["empty lines: 1", "shapes: text 3", "field text: string 3"]
        assert lines[-2:] == [outcome, f"outputs: {target}"]


def test_data_manifest_json_is_the_manifest(records: Path, tmp_path: Path) -> None:
    """What a machine reads is what stands in the file, where it lies, and what was done."""
    target = tmp_path / "m.json"
    printed = json.loads(_manifest(records, "--output", target, "--json").stdout)
    assert (printed.pop("outputs"), printed.pop("outcome")) == (str(target), "written")
    assert printed == json.loads(target.read_text())
    assert json.loads(_manifest(records, "--output", target, "--json", "--check").stdout)["outcome"] == "agrees"


def test_data_manifest_check_of_a_changed_file_fails(records: Path) -> None:
    """Exit code 2, one error block, and nothing was written."""
    assert _manifest(records, "--check").exit_code == 2
    assert [path.name for path in records.parent.iterdir()] == [records.name]
    assert _manifest(records).exit_code == 0
    records.write_text(records.read_text().replace('"b"', '"x"'))
    before = {path.name: path.stat().st_mtime_ns for path in records.parent.iterdir()}
    answer = _manifest(records, "--check")
    assert answer.exit_code == 2
    assert answer.stderr.count("error:") == 1
    assert "is not the file that" in answer.stderr
    assert answer.stdout == ""
    assert {path.name: path.stat().st_mtime_ns for path in records.parent.iterdir()} == before


def test_data_manifest_max_line_bytes_is_the_bound_of_the_reader(records: Path) -> None:
    """A longer line is a named error, and nothing is written; the longest that is allowed is none."""
    answer = _manifest(records, "--max-line-bytes", 12)
    assert answer.exit_code == 2
    assert "the line is longer than 12 bytes" in answer.stderr
    assert [path.name for path in records.parent.iterdir()] == [records.name]
    assert _manifest(records, "--max-line-bytes", 13).exit_code == 0
