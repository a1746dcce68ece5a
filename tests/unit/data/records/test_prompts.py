"""Files of prompts: the shapes that are known, what an answer in them does, and how faults are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codex_ml.data.problems import Problems
from codex_ml.data.records.chat import MessagesRecord
from codex_ml.data.records.prompts import PromptFile, PromptRow
from codex_ml.errors import DataError

USER = {"role": "user", "content": "How"}
ASSISTANT = {"role": "assistant", "content": "So"}


def read(path: Path, *values: Any, **options: Any) -> tuple[list[PromptRow], Problems]:
    """Return the rows of a file and what is wrong with the others."""
    file = path / "in.jsonl"
    file.write_text("".join(f"{json.dumps(value)}\n" for value in values), "utf-8")
    problems = Problems()
    return list(PromptFile(file, **options).read(problems)), problems


@pytest.mark.parametrize(
    ("value", "options", "prompt"),
    [
        ({"prompt": "How"}, {}, "How"),
        ({"prompt": "How", "completion": ""}, {}, "How"),
        ({"prompt": "", "completion": 7}, {}, ""),
        ({"question": "How"}, {"columns": {"prompt": "question", "completion": "answer"}}, "How"),
        ({"instruction": "Add", "input": "1"}, {}, "Add\n\n1\n\n"),
        ({"instruction": "Add", "output": "", "instances": []}, {}, "Add\n\n"),
        ({"prompt": "How", "messages": [USER]}, {"record_format": "prompt_completion"}, "How"),
    ],
)
def test_read_prompt_is_that_of_training_whatever_the_answer(
    tmp_path: Path, value: dict[str, Any], options: dict[str, Any], prompt: str
) -> None:
    """An answer may be there, missing, empty or of another type."""
    (row,), problems = read(tmp_path, value, **options)
    assert (row.prompt, row.record_id, problems.count) == (prompt, "in.jsonl:1", 0)


@pytest.mark.parametrize("value", [{"messages": [USER]}, {"messages": [USER, ASSISTANT]}, {"prompt": [USER]}])
def test_read_conversation_keeps_its_turns(tmp_path: Path, value: dict[str, Any]) -> None:
    """With or without the last answer, which the encoding of a prompt leaves away."""
    (row,), _ = read(tmp_path, value)
    assert isinstance(row.prompt, MessagesRecord)
    assert row.prompt.messages[0].content == "How"


@pytest.mark.parametrize(("given", "kept"), [("a", "a"), (7, 7), (True, None), (None, None), ([1], None), (1.5, None)])
def test_read_identifier_is_a_text_or_a_whole_number(tmp_path: Path, given: Any, kept: Any) -> None:
    """What could name a row comes with its answer; all else stays behind."""
    (row,), _ = read(tmp_path, {"prompt": "a", "id": given})
    assert row.identifier == kept


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"text": "a"}, "none of prompt, messages, conversations, instruction"),
        ({"prompt": "a", "messages": [USER]}, "more than one format"),
        ({"prompt": 7}, "prompt is not a string"),
        ({"instruction": " "}, "instruction holds nothing but white space"),
    ],
)
def test_read_row_that_is_no_prompt_is_named(tmp_path: Path, value: dict[str, Any], words: str) -> None:
    """By file and line, with the others read."""
    rows, problems = read(tmp_path, value)
    assert rows == []
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    assert "in.jsonl:1" in caught.value.block()
    assert words in caught.value.block()


def test_read_running_text_is_refused_by_name(tmp_path: Path) -> None:
    """A text stream asks for no answer."""
    _, problems = read(tmp_path, {"text": "a"}, record_format="text")
    with pytest.raises(DataError, match=r"in\.jsonl:1"):
        problems.raise_if_any()
