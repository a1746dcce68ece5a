"""`codex-ml data preview` from the outside: brackets and colours, and no way for a record to write on the terminal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from codex_ml.cli.data.preview import _rendered
from codex_ml.cli.main import app
from codex_ml.recipes.data.preview import PreviewedRecord, ShownToken


def _preview(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "preview", *map(str, arguments)])


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return seven records under an awkward name."""
    path = tmp_path / "mes données, a=b (1).jsonl"
    rows = [{"prompt": f"say {number}\nplease ", "completion": f"{number}"} for number in range(7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_data_preview_not_a_terminal_marks_supervision_with_brackets(records: Path, tiny_llama_directory: Path) -> None:
    """Five records unless told otherwise; line ends are visible, and so is the end-of-sequence token."""
    answer = _preview("--model", tiny_llama_directory, records)
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[1:3] == ["  say 0↵", "  please ⟦0<|end|>⟧"]
    assert sum("supervised" in line for line in lines) == 5
    assert "\x1b" not in answer.stdout
    assert len(_preview("--model", tiny_llama_directory, records, "--records", 2).stdout.splitlines()) == 6
    (head, *_) = _preview("--model", tiny_llama_directory, records, "--record", 7).stdout.splitlines()
    assert head.startswith(f"{records.name}:7: ")


def test_data_preview_ids_one_line_for_each_token(records: Path, tiny_llama_directory: Path) -> None:
    """Position, id, and whether it is special."""
    answer = _preview("--model", tiny_llama_directory, records, "--records", 1, "--ids")
    head, *lines = answer.stdout.splitlines()
    assert head.startswith(f"{records.name}:1: {len(lines)} tokens, 2 supervised")
    assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
    assert lines[-1].split()[2:] == ["special", "⟦<|end|>⟧"]


def test_data_preview_configuration_decides_as_in_training(records: Path, tiny_llama_directory: Path) -> None:
    """Overrides stand behind the file as in `train`; what is wrong with them is one error."""
    arguments = ("--model", tiny_llama_directory, records, "data.max_length_tokens=2")
    assert "stops the run: the record has" in _preview(*arguments).stdout
    assert "dropped: " in _preview(*arguments, "data.on_overlong=drop").stdout
    wrong = _preview(*arguments, "data.foo=1")
    assert wrong.exit_code == 2
    assert wrong.stderr.count("error:") == 1
    assert _preview(records).exit_code == 2


def test_data_preview_packed_file_is_read_and_gets_no_manifest(records: Path, tiny_llama_directory: Path) -> None:
    """The records of a gzip are shown like others; there is no place in it to seek to, which is said."""
    packed = records.with_name("packed.jsonl.gz")
    packed.write_bytes(gzip.compress(records.read_bytes()))
    answer = _preview("--model", tiny_llama_directory, packed, "--record", 7)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.splitlines()[1:] == ["  say 6↵", "  please ⟦6<|end|>⟧"]
    refused = CliRunner().invoke(app, ["data", "manifest", str(packed)])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: packed.jsonl.gz has no manifest")
    assert not packed.with_name(packed.name + ".manifest.json").exists()


def test_data_preview_files_of_the_configuration_are_not_looked_at(records: Path, tiny_llama_directory: Path) -> None:
    """A configuration for training names its own files; the one named here is shown, by its other values."""
    (records.parent / "mine.yaml").write_text(
        f"defaults: [default, _self_]\nmodel: {{path: '{tiny_llama_directory}'}}\n"
        "data: {train: other.jsonl, valid: no.jsonl, max_length_tokens: 2, on_overlong: drop}\n"
    )
    answer = _preview(records, "--config-dir", records.parent, "--config-name", "mine", "--records", 1)
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.splitlines()[1:] == ["  say 0↵", "  please ⟦0<|end|>⟧"]
    assert "dropped: " in answer.stdout


def _tokens(*texts: str) -> list[ShownToken]:
    return [ShownToken(index, text, index % 2 == 1, index == 3) for index, text in enumerate(texts)]


def test_rendered_colour_no_character_of_a_record_reaches_the_terminal_as_a_command() -> None:
    """Escapes of a record are written out; ours are those of green and bold alone."""
    tokens = _tokens("a\x1b[31m", "b\r", "c\u202e", "d")
    text = "\n".join(_rendered(PreviewedRecord("x\x1b[2J", "2 tokens", tokens, head=4), True, False))
    assert text == ("x\\x1b[2J: 2 tokens\n  a\\x1b[31m\x1b[32mb\\r\x1b[0mc\\u202e\x1b[32m\x1b[1md\x1b[0m")
    table = list(_rendered(PreviewedRecord("x", "2 tokens", tokens, head=4), True, True))
    assert len(table) == 5
    assert all("\r" not in line and "\u202e" not in line for line in table)


def test_rendered_record_of_many_lines_cannot_pass_for_a_line_of_ours() -> None:
    """Every line of a record is indented."""
    tokens = _tokens("\nfake.jsonl:2: 3 tokens\n", "\n")
    lines = "\n".join(_rendered(PreviewedRecord("x", "y", tokens, head=2), False, False)).split("\n")
    assert lines == ["x: y", "  ↵", "  fake.jsonl:2: 3 tokens↵", "  ⟦↵", "  ⟧"]
    plain = "\n".join(_rendered(PreviewedRecord("x", "y", plain="a\nb"), False, False)).split("\n")
    assert plain == ["x: y", "  a↵", "  b"]


def test_rendered_long_record_says_how_many_tokens_are_left_out() -> None:
    """In the text and in the table, at the place where they would stand; positions are those of the record."""
    record = PreviewedRecord("x", "y", _tokens("a", "b", "c"), head=2, left_out=100)
    assert list(_rendered(record, False, False))[1:] == ["  a⟦b⟧", "  … 100 tokens are not shown (--whole) …", "  c"]
    table = list(_rendered(record, False, True))[1:]
    assert [line.split()[0] for line in table] == ["0", "1", "…", "102"]
