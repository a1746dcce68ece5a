"""Real sets that hold the same records in two shapes each: read into the same records, tokenised into the same ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from codex_ml.data.records.chat import MessagesRecord
from codex_ml.data.records.formats import RecordReader
from codex_ml.data.tokenization.tokenizer import RecordTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.real_data


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def test_sharegpt_with_tools_reads_as_its_twin_in_messages(
    real_data: Path, make_family: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    """300 conversations, 211 calls and answers of tools among them: the same turns, the same tools, nothing unread."""
    directory = real_data / "chat_toolcall"
    shared = json.loads((directory / "glaive_toolcall_en_demo.sharegpt.json").read_text("utf-8"))
    first, second = RecordReader(), RecordReader()
    records = [first.read(line) for line in shared]
    twins = [second.read(line) for line in _lines(directory / "messages.jsonl")]
    assert (first.format, second.format) == ("conversations", "messages")
    assert records == twins
    assert (first.unused_columns, second.unused_columns) == ({}, {})
    conversations = [record for record in records if isinstance(record, MessagesRecord)]
    assert len(conversations) == 300
    assert sum(message.role == "tool" for record in conversations for message in record.messages) == 211
    assert sum(bool(record.tools) for record in conversations) == 191
    made = RecordTokenizer(make_family("chatml"))
    for index, record in enumerate(conversations[:20]):
        tokenized = made.tokenize(f"d:{index}", record)
        assert made.encode_prompt(record) == tokenized.prompt_ids
        assert tokenized.supervised_count > 0
    assert made.left_out == {}


def test_nested_instructions_read_as_their_flat_twin(real_data: Path) -> None:
    """175 tasks with one instance each."""
    directory = real_data / "self_instruct"
    nested, flat = RecordReader(), RecordReader()
    records = [nested.read(line) for line in _lines(directory / "seed_tasks.jsonl")]
    assert records == [flat.read(line) for line in _lines(directory / "seed_instruction_input_output.jsonl")]
    assert len(records) == 175
    assert nested.unused_columns == {"id": 175, "name": 175, "is_classification": 175}
