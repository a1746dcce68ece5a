"""Files read with every check: what is wrong is counted and placed, and never shown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from codex_ml.errors import DataError, SafetyError
from codex_ml.recipes.data.validate import ValidationOptions, validate_files

GOOD = b'{"prompt": "a", "completion": "b", "id": 7}\n'
OPTIONS = ValidationOptions()


@pytest.fixture
def write(tmp_path: Path):
    """Return what writes bytes under a name and gives the path."""

    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return written


def test_validate_files_sound_file_says_what_it_is(write) -> None:
    """Records, format, digest, empty lines and what is not read; nothing is raised."""
    (report,), problems = validate_files([write("a.jsonl.gz", gzip.compress(GOOD * 3 + b"\n"))], OPTIONS)
    problems.raise_if_any()
    answer = report.to_dict()
    assert answer["valid"]
    assert answer["records"] == {"read": 3, "valid": 3}
    assert (answer["format"], answer["empty_lines"], answer["unused_columns"]) == ("prompt_completion", 1, {"id": 3})
    assert answer["digest"].startswith("sha256:")


def test_validate_files_problems_of_all_files_are_counted_by_reason(write) -> None:
    """Every line of every file, behind a file that cannot be read as well; the sums add up."""
    first = write("a.jsonl", GOOD + b"SECRET\n" * 30 + b'{"prompt": "SECRET"}\n\xff\n' + GOOD)
    second = write("b.jsonl.gz", b"no archive")
    third = write("c.jsonl", GOOD + b"[]\n")
    reports, problems = validate_files([first, second, third], OPTIONS)
    answers = [report.to_dict() for report in reports]
    assert [answer["valid"] for answer in answers] == [False] * 3
    assert answers[0]["problems"]["by_reason"] == {"bad_encoding": 1, "bad_json": 30, "bad_shape": 1}
    assert len(answers[0]["problems"]["first"]) == 20
    assert answers[0]["problems"]["first"][0] == {"line": 2, "offset": len(GOOD), "reason": "bad_json"}
    assert "no gzip archive" in answers[1]["refused"]
    assert answers[2]["problems"]["by_reason"] == {"not_an_object": 1}
    for report in reports:
        assert report.read == report.records + report.problems.total()
    assert problems.count == 34
    with pytest.raises(DataError, match=r"^a\.jsonl:2: not valid JSON") as caught:
        problems.raise_if_any()
    assert "SECRET" not in caught.value.block() + json.dumps(answers)


def test_validate_files_findings_are_counted_by_rule_without_content(write) -> None:
    """An address is found, placed and not shown; the file is valid, because a run would redact it."""
    text = "write to somebody@example.com"
    content = json.dumps({"prompt": "x", "completion": text}).encode() + b"\n"
    (report,), problems = validate_files([write("a.jsonl", GOOD + content * 30)], OPTIONS)
    problems.raise_if_any()
    answer = report.to_dict()
    assert answer["findings"]["by_rule"] == {"email": 30}
    place = answer["findings"]["first"][0]
    assert place == {"line": 2, "field": "completion", "offset": 9, "length": 20, "rule": "email"}
    assert len(answer["findings"]["first"]) == 20
    assert "somebody" not in json.dumps(answer)


_ACTIONS = b"""
version: 1
rules:
  - {id: red, kind: regex, description: d, patterns: [RED]}
  - {id: gone, kind: regex, description: d, patterns: [DROP], action: drop}
  - {id: stop, kind: regex, description: d, patterns: [BLOCK], action: block}
  - {id: joined, kind: regex, description: d, patterns: ['one\\s+two']}
"""


@pytest.mark.safety
def test_validate_files_every_string_of_a_row_is_looked_at(write) -> None:
    """Keys, nested values, columns that the format does not use, rows that are no records; each where it stands."""
    rows = [
        {"prompt": "a", "completion": "b RED", "meta": {"who": [{"x": "RED"}], "RED": 1}},
        {"prompt": "RED", "other": "no completion"},
        {"messages": "RED"},
    ]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    (report,), _ = validate_files([path], ValidationOptions(policy=str(write("p.yaml", _ACTIONS))))
    found = report.to_dict()["findings"]
    assert [(place["line"], place["field"], place["offset"]) for place in found["first"]] == [
        (1, "completion", 2),
        (1, "meta.who[0].x", 0),
        (1, "meta.(key)", 0),
        (2, "prompt", 0),
        (3, "messages", 0),
    ]
    assert found["by_field"] == {"completion": 1, "meta.(key)": 1, "meta.who[].x": 1, "messages": 1, "prompt": 1}
    assert (found["by_rule"], found["policy"]) == ({"red": 5}, "p")
    assert found["policy_digest"].startswith("sha256:")


@pytest.mark.safety
def test_validate_files_records_that_a_run_leaves_out_are_counted_by_rule(write) -> None:
    """One rule a record; in a column that no run reads nothing is dropped, and nothing blocks."""
    rows = [{"prompt": "DROP", "completion": "DROP"}, {"prompt": "a", "completion": "b", "x": "DROP BLOCK"}]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    (report,), problems = validate_files([path], ValidationOptions(policy=str(write("p.yaml", _ACTIONS))))
    problems.raise_if_any()
    assert report.dropped_by_rule == {"gone": 1}
    assert report.findings.by_rule == {"gone": 3, "stop": 1}
    assert report.to_dict()["findings"]["dropped_by_rule"] == {"gone": 1}
    assert (report.records, report.is_valid) == (2, True)


@pytest.mark.safety
def test_validate_files_text_made_of_several_strings_is_looked_at_as_a_run_does(write) -> None:
    """An instruction and its input become one prompt; what shows only there is counted there, and once."""
    rows = [
        {"instruction": "say one", "input": "two", "output": "b"},
        {"instruction": "RED", "input": "x", "output": "b"},
    ]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    (report,), _ = validate_files([path], ValidationOptions(policy=str(write("p.yaml", _ACTIONS))))
    assert report.findings.by_rule == {"joined": 1, "red": 1}
    assert report.findings.by_field == {"prompt": 1, "instruction": 1}


def test_validate_files_record_that_the_policy_blocks_is_a_problem(write) -> None:
    """Training would stop at it."""
    policy = write(
        "policy.yaml",
        b"version: 1\nrules:\n  - {id: word, kind: regex, description: d, patterns: [FORBIDDEN], action: block}\n",
    )
    path = write("a.jsonl", GOOD + b'{"prompt": "FORBIDDEN", "completion": "b"}\n')
    (report,), problems = validate_files([path], ValidationOptions(policy=str(policy)))
    assert report.problems == {"blocked": 1}
    with pytest.raises(DataError, match=r"a\.jsonl:2: the safety policy blocks prompt \(rule word\)"):
        problems.raise_if_any()


def test_validate_files_options_are_those_of_a_run(write) -> None:
    """Format, columns, longest line and policy; what cannot be used is refused before a file is opened."""
    path = write("a.jsonl", b'{"q": "a", "a": "b"}\n')
    options = ValidationOptions("prompt_completion", {"prompt": "q", "completion": "a"})
    assert validate_files([path], options)[0][0].is_valid
    short = ValidationOptions("prompt_completion", {"prompt": "q", "completion": "a"}, max_line_bytes=5)
    assert validate_files([path], short)[0][0].problems == {"too_long_line": 1}
    with pytest.raises(DataError, match=r"data\.columns\.nonsense"):
        validate_files([path], ValidationOptions(columns={"nonsense": "q"}))
    with pytest.raises(SafetyError):
        validate_files([path], ValidationOptions(policy="no-such-policy"))
