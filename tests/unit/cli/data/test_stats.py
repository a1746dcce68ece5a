"""`codex-ml data stats` from the outside: what it prints, for people and for machines."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codex_ml.cli.main import app
from codex_ml.data.inspect.near_duplicates import DEFAULT_RECORDS, DEFAULT_THRESHOLD


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return 40 records of which 10 repeat another, and 8 others of which 3 stand among them and 5 share a prompt."""
    train, valid = tmp_path / "train.jsonl", tmp_path / "valid.jsonl"
    rows = [{"prompt": f"question {number % 30}", "completion": f"secret {number % 30}"} for number in range(40)]
    others = [
        *rows[:3],
        *({**row, "completion": "else"} for row in rows[3:5]),
        *({"prompt": c, "completion": c} for c in "abc"),
    ]
    for path, content in ((train, rows), (valid, others)):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return train, valid


def _stats(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "stats", *map(str, arguments)])


def test_data_stats_two_files_says_what_repeats_and_what_is_shared(files: tuple[Path, Path]) -> None:
    """Counts by file, a picture, the overlap, and warnings; positions, never content."""
    answer = _stats(*files)
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].startswith(
        f"train.jsonl: 40 records, {files[0].stat().st_size:,} bytes, format prompt_completion, sha256:"
    )
    assert "  distinct: 30 records, 30 prompts" in lines
    assert "  exact duplicates: 10 records repeat an earlier one; lines 31 = 1, 32 = 2, 33 = 3 …" in lines
    assert any("█" in line or "#" in line for line in lines)
    assert "tokens and supervision are counted with --model PATH" in lines
    assert any(
        line.startswith("valid.jsonl in train.jsonl: 3 of 8 records byte for byte, 5 by prompt") for line in lines
    )
    assert sum(line.startswith("warning: ") for line in lines) == 2
    assert "secret" not in answer.stdout


def test_data_stats_json_is_the_same_every_time(files: tuple[Path, Path]) -> None:
    """One JSON object; figures come out the same at the next call."""
    answer = _stats(*files, "--json")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [file["records"] for file in found["files"]] == [40, 8]
    assert found["overlaps"][0]["records"] == 3
    assert found["near_threshold"] == DEFAULT_THRESHOLD
    assert _stats(*files, "--json").stdout == answer.stdout
    same = _stats(*files, "--json", "--near-records", DEFAULT_RECORDS, "--near-threshold", DEFAULT_THRESHOLD)
    assert same.stdout == answer.stdout


def test_data_stats_near_records_limits_what_is_looked_at_and_says_so(files: tuple[Path, Path]) -> None:
    """A sample is called one; none at all is said, too."""
    limited = _stats(files[0], "--near-records", "8").stdout
    assert "of 30 distinct records looked at: a pair is found where both are; raise --near-records" in limited
    off = _stats(*files, "--near-records", "0").stdout
    assert off.count("near duplicates: not looked for (--near-records 0)") == 2
    assert "nearly" not in off


def test_data_stats_near_threshold_lower_finds_more(tmp_path: Path) -> None:
    """Texts that share two of three shingles are near at 0.5 and not at 0.8."""
    path = tmp_path / "data.jsonl"
    words = [f"word{number}" for number in range(30)]
    texts = [" ".join(words), " ".join([*words[:26], "one", "two", "three", "four"])]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    counts = [
        json.loads(_stats(path, "--json", "--near-threshold", threshold).stdout)["files"][0]["near_duplicates"][
            "records"
        ]
        for threshold in ("0.5", "0.9")
    ]
    assert counts == [1, 0]


def test_data_stats_packed_and_tabular_files_are_read_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A gzip of the same records is the same data; a table's prompts are found among them."""
    packed, table = tmp_path / "packed.jsonl.gz", tmp_path / "table.csv"
    packed.write_bytes(gzip.compress(files[0].read_bytes()))
    table.write_text("prompt,completion\nquestion 7,other\nno,no\n")
    answer = _stats(files[0], packed, table, "--json")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [file["records"] for file in found["files"]] == [40, 40, 2]
    plain, unpacked = (
        {key: value for key, value in file.items() if key not in ("name", "digest", "bytes")}
        for file in found["files"][:2]
    )
    assert plain == unpacked
    assert [(pair["records"], pair["records_by_prompt"]) for pair in found["overlaps"]] == [(40, 40), (0, 1), (0, 1)]


def test_data_stats_max_line_bytes_is_the_bound_of_the_reader(files: tuple[Path, Path]) -> None:
    """A longer line is a named error; the longest that is allowed is none."""
    longest = max(len(line) for line in files[0].read_bytes().splitlines())
    assert _stats(files[0], "--max-line-bytes", longest).exit_code == 0
    answer = _stats(files[0], "--max-line-bytes", longest - 1)
    assert answer.exit_code == 2
    assert f"the line is longer than {longest - 1} bytes" in answer.stderr


def test_data_stats_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Where names are equal the paths stand in the report."""
    paths = [tmp_path / name / "data.jsonl" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text('{"text": "a"}\n')
    found = json.loads(_stats(*paths, "--json").stdout)
    assert [file["name"] for file in found["files"]] == [str(path) for path in paths]
    assert found["overlaps"][0]["records"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.jsonl",), "absent.jsonl does not exist"),
        (("--column", "prompt", "FILE"), "--column: a mapping has two sides"),
        (("--column", "prompt=a", "--column", "prompt=b", "FILE"), "--column: prompt is mapped twice"),
        (("--column", "pompt=a", "FILE"), "data.columns.pompt: no such field"),
        (("--format", "foo", "FILE"), "unknown format 'foo'"),
        (("--format", "text", "FILE"), "train.jsonl:1: key 'text' is missing"),
        (("--model", "nowhere", "FILE"), "--model: no tokenizer directory"),
    ],
)
def test_data_stats_bad_input_is_one_error_block(
    files: tuple[Path, Path], arguments: tuple[str, ...], said: str
) -> None:
    """Exit code 2, what is wrong, no traceback, no result."""
    answer = _stats(*(files[0] if argument == "FILE" else argument for argument in arguments))
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert answer.stderr.count("error:") == 1
    assert answer.stdout == ""


def test_data_stats_model_counts_tokens_as_training_does(files: tuple[Path, Path], tiny_llama_directory: Path) -> None:
    """Tokens and supervised tokens are those of the record tokenizer."""
    from codex_ml.data.records.formats import PromptCompletionRecord
    from codex_ml.data.tokenization.tokenizer import RecordTokenizer
    from codex_ml.models.registry import load_tokenizer_directory

    answer = _stats(files[1], "--json", "--model", tiny_llama_directory)
    assert answer.exit_code == 0, answer.stderr
    tokens = json.loads(answer.stdout)["files"][0]["tokens"]
    tokenizer = RecordTokenizer(load_tokenizer_directory(tiny_llama_directory, "--model"))
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    tokenized = [tokenizer.tokenize("x", PromptCompletionRecord(**row)) for row in rows]
    assert tokens["total"] == sum(len(record.input_ids) for record in tokenized)
    assert tokens["supervised"] == sum(record.supervised_count for record in tokenized)
    text = _stats(files[1], "--model", tiny_llama_directory).stdout
    assert f"  supervised: {tokens['supervised']:,} of {tokens['total']:,} tokens (" in text
    assert "counted with --model" not in text
