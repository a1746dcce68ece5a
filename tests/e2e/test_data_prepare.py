"""`codex-ml data prepare` as a user runs it, on real files where they are there, up to a training run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def _prepare(command_line, directory: Path, *arguments: str) -> dict:
    answer = command_line.run("data", "prepare", *arguments, "--json", directory=directory)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_data_prepare_list_and_unknown_name(command_line, tmp_path: Path) -> None:
    """The list says what there is, and a name that is none leads to it."""
    answer = command_line.run("data", "prepare", "--list", directory=tmp_path)
    assert "running text in UTF-8" in answer.stdout
    answer = command_line.run("data", "prepare", "tinyshakspeare", "--out", "x", directory=tmp_path)
    assert answer.returncode == 2
    assert "did you mean 'tinyshakespeare'?" in answer.stderr
    answer = command_line.run("data", "prepare", "tinyshakespeare", "--out", "x", directory=tmp_path)
    assert answer.returncode == 2
    assert "bring the file yourself and name it: --source FILE" in answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "a.csv"], "--out is missing"),
        (["--out", "o"], "this preparer needs a raw file"),
        (["--source", "nowhere", "--out", "o"], "nowhere does not exist"),
        (["--source", "a.csv", "--out", "o", "--column", "prompt"], "a mapping has two sides"),
        (["--source", "a.csv", "--out", "o", "--unit", "line"], "only running text is cut"),
        (["--source", "a.csv", "--out", "o", "--ratios", "0.5,0.1,0.1"], "sum to 0.7"),
        (["--source", "a.csv", "--out", "o", "--ratios", "a"], "is not a list of numbers"),
        (["--source", "a.csv", "--out", "o", "--tokenizer", "3"], "vocabulary_size"),
        (["--source", "a.csv", "--out", "o", "--preparer-dir", "nowhere"], "is no directory"),
    ],
)
def test_data_prepare_wrong_option_is_one_block_and_exit_2(command_line, tmp_path: Path, arguments, words) -> None:
    """No traceback, and nothing is made."""
    (tmp_path / "a.csv").write_text("q,a\nx,y\n", encoding="utf-8")
    answer = command_line.run("data", "prepare", *arguments, directory=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.count("error:") == 1
    assert words in answer.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "json"])
def test_data_prepare_tables_give_the_same_records(command_line, tmp_path: Path, kind: str) -> None:
    """The same rows in any kind of file give the same bytes."""
    import pandas as pd

    rows = [{"q": f'question, "{n}"\nline \u00e9', "a": f" answer {n} "} for n in range(50)]
    if kind == "tsv":
        # It has no quoting: neither line ends nor what pandas would put into quotes.
        rows = [{"q": row["q"].replace('"', "").replace("\n", " "), "a": row["a"]} for row in rows]
    frame = pd.DataFrame(rows)
    file = tmp_path / f"raw.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    else:
        frame.to_csv(file, sep="\t" if kind == "tsv" else ",", index=False)
    columns = ["--column", "prompt=q", "--column", "completion=a"]
    done = _prepare(command_line, tmp_path, "--source", file.name, *columns, "--out", "out")
    assert done["account"]["records_written"] == 50
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").open(encoding="utf-8")]
    assert records == [{"prompt": row["q"], "completion": row["a"]} for row in rows]


@pytest.mark.slow
@pytest.mark.real_data
def test_data_prepare_tinyshakespeare_gives_a_corpus_that_trains(command_line, tmp_path: Path, real_data: Path) -> None:
    """Text to paragraphs, splits and tokenizer, and a small model trained from scratch on them."""
    source = str(real_data / "tinyshakespeare" / "input.txt")
    done = _prepare(command_line, tmp_path, "tinyshakespeare", "--source", source, "--out", "book")
    assert done["account"]["records_written"] == 7222
    text = (real_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    records = [json.loads(line)["text"] for line in (tmp_path / "book" / "records.jsonl").open(encoding="utf-8")]
    # A border is one blank line or more, so only line ends can differ.
    assert "".join(records).replace("\n", "") == text.replace("\n", "")
    again = _prepare(command_line, tmp_path, "tinyshakespeare", "--source", source, "--out", "book")
    assert set(again["changes"].values()) == {"skipped"}
    answer = command_line.run(
        "train",
        "--config-name",
        "default",
        "model=llama_tiny_preset",
        "adapter=none",
        "--model-tokenizer",
        "book/tokenizer",
        "--data-train",
        "book/splits/train.jsonl",
        "--data-valid",
        "book/splits/valid.jsonl",
        "training.max_steps=2",
        "data.max_length_tokens=512",
        "data.on_overlong=truncate_completion",
        directory=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
@pytest.mark.real_data
def test_data_prepare_e2e_table_keeps_every_row(command_line, tmp_path: Path, real_data: Path) -> None:
    """4,672 rows of a CSV file with mapped columns; rows of one prompt stay in one split."""
    columns = ["--column", "prompt=mr", "--column", "completion=ref"]
    source = str(real_data / "e2e_nlg" / "devset.csv")
    done = _prepare(command_line, tmp_path, "--source", source, *columns, "--group-by", "prompt", "--out", "e2e")
    assert done["account"] == {"rows_read": 4672, "records_written": 4672, "dropped": {}, "numbers_as_text": 0}
    prompts = [
        {json.loads(line)["prompt"] for line in (tmp_path / "e2e" / "splits" / f"{name}.jsonl").open(encoding="utf-8")}
        for name in ("train", "valid", "test")
    ]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 547
