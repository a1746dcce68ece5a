"""Formats of records: detection, mapping, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.data.records.formats import (
    MessagesRecord,
    PromptCompletionRecord,
    RecordReader,
    TextRecord,
    detect_format,
    map_strings,
    to_record,
)
from codex_ml.errors import DataError

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt": "p", "completion": "c", "id": 7}, "prompt_completion"),
        ({"messages": MESSAGES, "tools": "[]"}, "messages"),
        ({"text": "t"}, "text"),
        ({"instruction": "i", "input": "", "output": "o"}, "instruction"),
        ({"instruction": "i", "output": "o"}, "instruction"),
    ],
)
def test_detect_format_known_shape_is_named(value: dict[str, Any], expected: str) -> None:
    """The required fields decide; further keys do not."""
    assert detect_format(value) == expected


def test_detect_format_columns_map_other_names() -> None:
    """GSM8K's names are read through a mapping, which also settles what a further column would leave open."""
    columns = {"prompt": "question", "completion": "answer"}
    assert detect_format({"question": "q", "answer": "a", "text": "t"}, columns) == "prompt_completion"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"question": "q", "answer": "a"}, "the line has 'question', 'answer', which is no format known here"),
        ({"source": "s", "lang": "en"}, r"expected one of: prompt\+completion; messages; conversations; text"),
        ({"messages": [], "conversations": []}, "more than one format"),
        ({"text": "t", "prompt": "p", "completion": "c"}, "more than one format"),
    ],
)
def test_detect_format_unclear_shape_is_refused(value: dict[str, Any], reason: str) -> None:
    """Nothing is guessed; the message shows the keys and says what to set."""
    with pytest.raises(ValueError, match=reason):
        detect_format(value)


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2\n\n"),
        ({"instruction": "Sing.", "input": "", "output": "la"}, "Sing.\n\n"),
        ({"instruction": "Sing.", "input": None, "output": "la"}, "Sing.\n\n"),
        ({"instruction": "Sing.", "output": "la"}, "Sing.\n\n"),
    ],
)
def test_to_record_instruction_becomes_prompt_and_completion(value: dict[str, Any], prompt: str) -> None:
    """An empty input leaves no empty block behind."""
    assert to_record(value, "instruction") == PromptCompletionRecord(prompt=prompt, completion=value["output"])


@pytest.mark.parametrize(
    ("value", "record_format", "reason"),
    [
        ({"prompt": "p"}, "prompt_completion", "key 'completion' is missing"),
        ({"prompt": "p", "completion": " \n\t"}, "prompt_completion", "completion holds nothing but white space"),
        ({"prompt": "p", "completion": 7}, "prompt_completion", "completion is not a string"),
        ({"prompt": None, "completion": "c"}, "prompt_completion", "prompt is not a string"),
        ({"text": ""}, "text", "text is empty"),
        ({"instruction": "i", "output": ""}, "instruction", "output is empty"),
        ({"messages": []}, "messages", "messages is empty"),
        ({"messages": "SECRET"}, "messages", "messages is not a list"),
        ({"messages": ["SECRET"]}, "messages", r"messages\[0\] is not an object"),
        ({"messages": [{"role": "SECRET", "content": "x"}]}, "messages", r"messages\[0\].role is none of system, user"),
        ({"messages": [{"role": "user"}]}, "messages", r"messages\[0\].content is missing"),
        ({"messages": [{"role": "user", "content": ["SECRET"]}]}, "messages", r"content\[0\] is not a part of text"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": " "}]}, "messages", r"messages\[2\].content of the"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": ["SECRET"]}]},
            "messages",
            r"messages\[0\].tool_calls\[0\] is not an object",
        ),
    ],
)
def test_to_record_faulty_line_is_refused_without_its_content(
    value: dict[str, Any], record_format: Any, reason: str
) -> None:
    """The message names the key at fault and shows no value."""
    with pytest.raises(ValueError, match=reason) as caught:
        to_record(value, record_format)
    assert "SECRET" not in str(caught.value)


def test_to_record_mapped_column_is_named_in_the_message() -> None:
    """Somebody who maps columns looks for the name in the file."""
    columns = {"prompt": "question", "completion": "answer"}
    with pytest.raises(ValueError, match=r"completion \(column 'answer'\) is empty"):
        to_record({"question": "q", "answer": ""}, "prompt_completion", columns)
    with pytest.raises(ValueError, match="key 'answer' is missing"):
        to_record({"question": "q", "completion": "c"}, "prompt_completion", columns)


def test_record_reader_one_shape_a_file_another_is_refused() -> None:
    """The first line decides, and a later line of another shape lacks its keys."""
    reader = RecordReader()
    assert reader.read({"text": "t"}) == TextRecord(text="t")
    with pytest.raises(ValueError, match=r"key 'text' is missing \(format text\)"):
        reader.read({"prompt": "p", "completion": "c"})


def test_record_reader_unused_keys_are_counted_and_never_shown_as_content() -> None:
    """What a format does not read is counted by name; a key that looks like content is not repeated."""
    reader = RecordReader()
    for _ in range(2):
        reader.read({"text": "t", "source": "web", "AKIA1234567890ABCDEF": 1})
    assert reader.unused_columns == {"source": 2, "(a key that is not shown)": 2}


def test_record_reader_unknown_field_in_columns_is_refused() -> None:
    """A mapping to a field that does not exist would do nothing, so it is an error."""
    with pytest.raises(DataError, match=r"data\.columns\.promt"):
        RecordReader("prompt_completion", {"promt": "question"})


def test_map_strings_every_string_is_visited_with_its_field() -> None:
    """The safety filters see all of a record."""
    seen: list[str] = []

    def change(field: str, text: str) -> str:
        seen.append(field)
        return text.upper()

    record = to_record({"messages": MESSAGES}, "messages")
    changed = map_strings(record, change)
    assert isinstance(changed, MessagesRecord)
    assert [message.content for message in changed.messages] == ["HI", "HELLO"]
    assert map_strings(PromptCompletionRecord(prompt="a", completion="b"), change).model_dump() == {
        "prompt": "A",
        "completion": "B",
    }
    assert map_strings(TextRecord(text="t"), change) == TextRecord(text="T")
    assert seen == ["messages[0].content", "messages[1].content", "prompt", "completion", "text"]
