"""Figures of files: counted as a slow reading counts them, named by line, and nothing of the content in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.data.inspect.statistics import StatisticsOptions, describe_files, read_figures
from codex_ml.data.records.formats import Record
from codex_ml.errors import DataError

OPTIONS = StatisticsOptions()
WORDS = "the cabin key lies under the third stone beside the old well in the garden"


def _write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _row(prompt: str, completion: str) -> dict:
    return {"prompt": prompt, "completion": completion}


def test_describe_files_duplicates_and_overlaps_are_counted_by_line(tmp_path: Path) -> None:
    """Exact, by prompt, and near; empty lines count as lines and not as records."""
    train = tmp_path / "train.jsonl"
    rows = [_row("a", "1"), _row("b", WORDS), _row("a", "1"), _row("a", "2"), _row("a", "1")]
    lines = [json.dumps(row) for row in rows]
    train.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n", encoding="utf-8")
    valid = _write(tmp_path / "valid.jsonl", _row("c", "3"), _row("b", WORDS.upper()), _row("a", "2"), _row("a", "9"))
    found = describe_files([read_figures(path, OPTIONS) for path in (train, valid)], OPTIONS)
    first, second = found["files"]
    assert (first["records"], first["empty_lines"], first["bytes"]) == (5, 1, train.stat().st_size)
    assert (first["distinct_records"], first["distinct_prompts"]) == (3, 2)
    assert first["exact_duplicates"] == {"records": 2, "lines": [[4, 1], [6, 1]]}
    assert first["near_duplicates"] == {"looked_at": 3, "share_looked_at": 1.0, "records": 0, "lines": []}
    assert first["characters"]["total"] == 4 * 2 + 1 + len(WORDS)
    assert second["exact_duplicates"]["records"] == 0
    (overlap,) = found["overlaps"]
    assert (overlap["file"], overlap["in"], overlap["of"]) == ("valid.jsonl", "train.jsonl", 4)
    assert (overlap["records"], overlap["records_by_prompt"]) == (1, 3)
    assert overlap["lines"] == [[3, 5]]
    assert overlap["near"] == {"looked_at": 4, "records": 1, "lines": [[2, 3, 1.0]]}
    assert found["warnings"] == [
        "train.jsonl: 2 of 5 records repeat another byte for byte; each counts as often as it occurs",
        "valid.jsonl: of 4 records some also appear in train.jsonl: 1 byte for byte, 3 by prompt, 1 distinct ones "
        "nearly; scores on them measure memory",
    ]
    assert "cabin" not in json.dumps(found)


def test_describe_files_clean_files_give_no_warning(tmp_path: Path) -> None:
    """Nothing repeated, nothing shared: no line that alarms."""
    files = [
        read_figures(
            _write(tmp_path / f"{number}.jsonl", *({"text": f"{number} {row} {WORDS[row:]}"} for row in range(9))),
            OPTIONS,
        )
        for number in range(2)
    ]
    found = describe_files(files, StatisticsOptions(near_records=0))
    assert found["warnings"] == []
    assert found["files"][0]["near_duplicates"] is None
    assert found["overlaps"][0]["near"] is None
    assert found["files"][0]["tokens"] is None


def test_read_figures_tokens_are_those_of_the_counter(tmp_path: Path) -> None:
    """Tokens and supervision add up; what cannot be tokenised or supervises nothing is said."""

    def count(record_id: str, _record: Record) -> tuple[int, int]:
        if record_id == "2":
            raise ValueError("the template cannot be followed")
        return 10 * int(record_id), 0 if record_id == "3" else int(record_id)

    path = _write(tmp_path / "data.jsonl", *(_row(str(number), "x") for number in range(4)))
    found = describe_files([read_figures(path, OPTIONS, count)], OPTIONS)
    tokens = found["files"][0]["tokens"]
    assert (tokens["total"], tokens["supervised"]) == (10 + 30 + 40, 1 + 4)
    assert (tokens["records_without_supervision"], tokens["records_not_tokenised"]) == (1, 1)
    assert found["warnings"] == [
        "data.jsonl: 1 records cannot be tokenised, first line 2: the template cannot be followed",
        "data.jsonl: 1 records have no supervised token; nothing is learned from them",
    ]


def test_read_figures_conversations_count_every_string(tmp_path: Path) -> None:
    """All that is said in a conversation, by whom ever; the prompt is what stands before the last answer."""
    turns = [("user", "one"), ("assistant", "three"), ("user", "x"), ("assistant", "y")]
    rows = [
        {"chat": [{"role": role, "content": text} for role, text in [*turns[:3], ("assistant", answer)]]}
        for answer in ("y", "zz")
    ]
    options = StatisticsOptions(columns={"messages": "chat"})
    figures = read_figures(_write(tmp_path / "chat.jsonl", *rows), options)
    assert figures.characters.tolist() == [3 + 5 + 1 + 1, 3 + 5 + 1 + 2]
    assert describe_files([figures], options)["files"][0]["distinct_prompts"] == 1


def test_read_figures_faulty_lines_are_one_error_that_names_each(tmp_path: Path) -> None:
    """Bad JSON and a bad shape, by line; a format that is no format is said once."""
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n{"text": 1}\n{"text"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl:2") as caught:
        read_figures(path, OPTIONS)
    assert "bad.jsonl:3" in caught.value.block()
    path.write_text('{"foo": "a"}\n{"foo": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"bad\.jsonl:1") as caught:
        read_figures(path, OPTIONS)
    assert "bad.jsonl:2" not in caught.value.block()
