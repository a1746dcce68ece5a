"""Files read with every check: what is wrong is counted and placed, and never shown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from codex_ml.errors import DataError, SafetyError
from codex_ml.recipes.data_validation import ValidationOptions, validate_files

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
