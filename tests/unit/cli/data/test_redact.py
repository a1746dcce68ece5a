"""`codex-ml data redact` from the outside: what it prints, its exit codes, and that nothing of the content is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import app

pytestmark = pytest.mark.safety
_ADDRESS = "somebody" + "@" + "example.com"
_ROWS = [{"text": "one"}, {"text": f"write to {_ADDRESS}"}, {"meta": {"mail": [_ADDRESS, _ADDRESS]}}]


def _redact(*arguments: str | Path):
    return CliRunner().invoke(app, ["data", "redact", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of three rows, two of them with an address."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _ROWS), encoding="utf-8")
    return path


def test_data_redact_says_what_was_done_and_where_it_lies(source: Path, tmp_path: Path) -> None:
    """Counts, rules, fields, places, digests; the last line names the output."""
    answer = _redact("--input", source, "--output", tmp_path / "out.jsonl", "--report", tmp_path / "r.json")
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[:4] == [
        "in.jsonl: 3 rows read, 3 kept, 2 of them changed, 0 dropped",
        "  findings by rule: email 3",
        "  findings by field: meta.mail[] 2, text 1",
        "    line 2: email in text at 9, length 20",
    ]
    assert lines[-2:] == [f"report: {tmp_path / 'r.json'}", f"outputs: {tmp_path / 'out.jsonl'}"]
    assert (tmp_path / "out.jsonl").read_text("utf-8") == source.read_text("utf-8").replace(
        _ADDRESS, "[REDACTED:email]"
    )
    assert json.loads((tmp_path / "r.json").read_bytes())["findings_by_rule"] == {"email": 3}
    assert "somebody" not in answer.output + (tmp_path / "r.json").read_text("utf-8")


def test_data_redact_json_is_the_report(source: Path, tmp_path: Path) -> None:
    """The same as the report, with the path of the output."""
    arguments = ("--input", source, "--output", tmp_path / "out.jsonl", "--report", tmp_path / "r.json", "--json")
    answer = _redact(*arguments, "--pseudonyms")
    found = json.loads(answer.stdout)
    assert found.pop("outputs") == str(tmp_path / "out.jsonl")
    assert found == json.loads((tmp_path / "r.json").read_bytes())
    assert found["pseudonyms"]
    assert (tmp_path / "out.jsonl").read_text("utf-8").count("[REDACTED:email:1]") == 3


def test_data_redact_many_findings_are_shown_in_part(tmp_path: Path) -> None:
    """Twenty, and how many more."""
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"text": _ADDRESS}) + "\n" + f'{{"text": "{_ADDRESS}"}}\n' * 29, encoding="utf-8")
    answer = _redact("--input", source, "--output", tmp_path / "out.jsonl")
    assert answer.stdout.count("    line ") == 20
    assert "    and 10 more\n" in answer.stdout


def test_data_redact_blocked_row_exits_2_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    """One block with file, line, field and rule; the options of the policy and of the longest line reach the job."""
    policy = tmp_path / "mine.yaml"
    policy.write_text(
        "version: 1\nrules:\n  - {id: word, kind: regex, description: d, patterns: [write], action: block}\n", "utf-8"
    )
    answer = _redact("--input", source, "--output", tmp_path / "o", "--report", tmp_path / "r", "--policy", policy)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: in.jsonl:2: the safety policy blocks text (rule word)\n")
    assert answer.stdout == ""
    answer = _redact("--input", source, "--output", tmp_path / "o", "--max-line-bytes", "20")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: in.jsonl:2: the line is longer than 20 bytes")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "mine.yaml"]


def test_data_redact_output_is_written_over_only_when_asked(source: Path, tmp_path: Path) -> None:
    """Exit code 2 with what to do; never over the input."""
    output = tmp_path / "out.jsonl"
    output.write_text("before", "utf-8")
    answer = _redact("--input", source, "--output", output)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"error: --output: {output} exists")
    assert output.read_text("utf-8") == "before"
    assert _redact("--input", source, "--output", output, "--overwrite").exit_code == 0
    before = source.read_bytes()
    answer = _redact("--input", source, "--output", source, "--overwrite")
    assert answer.exit_code == 2
    assert "--output and --input name one file" in answer.stderr
    assert source.read_bytes() == before
