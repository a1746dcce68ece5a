"""What records are grouped by: fields, paths, and the prompt of every shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.records.chat import Message, MessagesRecord
from codex_ml.data.records.formats import RecordReader
from codex_ml.data.splits.groups import group_key, prompt_of, record_key

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}


def test_record_key_known_bytes_have_a_known_key() -> None:
    """Golden value: a change here moves records between train and test of every user."""
    assert record_key(b'{"text": "a"}').hex() == "f0cd14f4cc6f7db19e8537db0161c2ce82acc2f79499e1c433f6936a9145de05"


def test_group_key_known_value_has_a_known_key() -> None:
    """Golden value: a change here moves groups between train and test of every user."""
    assert (
        group_key({"g": {"b": "é", "a": 1}}, "g").hex()
        == "a3a6fe69bff3b2c940e0701550482f39653487b889d64a74c7ec276670d4b55e"
    )


def test_group_key_value_written_otherwise_is_the_same_group() -> None:
    """Order of keys is no part of a value, types are."""
    first = group_key({"group": {"a": 1, "b": "é"}}, "group")
    assert first == group_key({"group": {"b": "\u00e9", "a": 1}, "x": 0}, "group")
    assert len({group_key({"group": value}, "group") for value in (1, "1", 1.5, True, None, [1], {"1": 1})}) == 7


def test_group_key_dotted_name_is_a_field_first_and_a_path_then() -> None:
    """A field of that very name wins; else the parts lead into nested objects."""
    assert group_key({"meta": {"topic": "a"}}, "meta.topic") == group_key({"g": "a"}, "g")
    assert group_key({"meta": {"topic": "a"}, "meta.topic": "b"}, "meta.topic") == group_key({"g": "b"}, "g")


@pytest.mark.parametrize("value", [{}, {"meta": "text"}, {"meta": {"other": 1}}, {"meta": [{"topic": 1}]}])
def test_group_key_absent_field_is_refused_without_content(value: dict[str, Any]) -> None:
    """The message names the field and what the line has, and shows no value."""
    with pytest.raises(ValueError, match=r"\(a key that is not shown\)|'meta.topic'") as caught:
        group_key(value, "meta.topic")
    assert "is missing" in str(caught.value)
    assert "text" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt": "p", "completion": "1"}, {"prompt": "p", "completion": "2"}),
        ({"messages": [USER, ANSWER]}, {"messages": [USER, {"role": "assistant", "content": "other"}]}),
        ({"messages": [USER, ANSWER]}, {"messages": [{**USER, "name": "x"}, ANSWER, USER]}),
        ({"messages": [USER, ANSWER]}, {"messages": [USER]}),
        (
            {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "1"}]},
            {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "2"}]},
        ),
        (
            {"messages": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "1"}]},
            {"messages": [{"from": "human", "value": "hello"}, {"from": "function_call", "value": "2"}]},
        ),
        ({"instruction": "i", "output": "1"}, {"instruction": "i", "input": " ", "output": "2"}),
        ({"instruction": "i", "input": None, "output": "1"}, {"instruction": "i", "input": "", "output": "2"}),
        ({"instruction": "i", "input": "x", "output": "1"}, {"instruction": "i", "input": "x", "output": "2"}),
        ({"text": "t"}, {"text": "t", "id": 2}),
    ],
)
def test_prompt_of_same_prompt_other_answer_is_one_group(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Whatever the shape, what the model is given decides, and nothing else does."""
    assert group_key(first, "prompt") == group_key(second, "prompt")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt": "p", "completion": "1"}, {"prompt": "q", "completion": "1"}),
        ({"messages": [USER, ANSWER]}, {"messages": [{**USER, "content": "other"}, ANSWER]}),
        ({"messages": [USER, ANSWER]}, {"messages": [{**USER, "role": "system"}, ANSWER]}),
        (
            {"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "1"}]},
            {"messages": [{"from": "human", "value": "b"}, {"from": "gpt", "value": "1"}]},
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, USER, ANSWER]},
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "g"}}]}, USER, ANSWER]},
        ),
        ({"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER, USER, ANSWER]}),
        ({"instruction": "i", "input": "x", "output": "1"}, {"instruction": "i", "input": "y", "output": "1"}),
        ({"text": "t"}, {"text": "u"}),
    ],
)
def test_prompt_of_other_prompt_is_another_group(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two prompts are never one group."""
    assert group_key(first, "prompt") != group_key(second, "prompt")


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ({"prompt": "question"}, {"question": "p", "prompt": "unused"}),
        ({"messages": "chat"}, {"chat": [USER, ANSWER]}),
        ({"instruction": "task", "input": "given"}, {"task": "i", "given": "x", "input": "unused"}),
        ({"text": "body"}, {"body": "t"}),
    ],
)
def test_prompt_of_mapped_columns_are_followed(columns: dict[str, str], value: dict[str, Any]) -> None:
    """A file with other names gives the same prompt as one with the usual names."""
    expected = {"question": "p", "chat": [("user", "hello")], "task": "i\n\nx", "body": "t"}
    assert prompt_of(value, columns) == next(expected[key] for key in expected if key in value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"question": "q"}, "no prompt to be grouped by"),
        ({"messages": "secret words"}, "not a list of turns"),
        ({"messages": ["secret words"]}, "not a list of turns"),
    ],
)
def test_prompt_of_unknown_shape_is_refused_without_content(value: dict[str, Any], reason: str) -> None:
    """A record without a prompt is named as such; nothing of it is shown."""
    with pytest.raises(ValueError, match=reason) as caught:
        prompt_of(value, {})
    assert "secret" not in str(caught.value)


def test_prompt_of_turn_with_odd_speaker_is_read() -> None:
    """A speaker that is no string is no assistant, and no crash."""
    assert prompt_of({"messages": [{"role": ["x"], "content": "a"}, ANSWER]}, {}) == [(["x"], "a")]


CALL = {"name": "f", "arguments": {"a": 1, "b": "é"}}
CALL_TEXT = '{"b": "é", "a": 1}'


def _spelled(system: str, question: str) -> list[dict[str, Any]]:
    """Return one conversation with a call of a tool in every spelling that is read."""
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        called,
        {"role": "tool", "content": "4"},
    ]
    parts = [{"type": "text", "text": question[:2]}, {"type": "text", "text": question[2:]}]
    as_text = [{"function": {"name": "f", "arguments": CALL_TEXT}}]
    sharegpt = [
        {"from": "human", "value": question},
        {"from": "gpt", "value": "", "function_call": {"name": "f", "arguments": CALL_TEXT}},
        {"from": "observation", "value": "4"},
    ]
    return [
        {"messages": [*messages, ANSWER]},
        {
            "messages": [
                {"role": "developer", "content": system},
                {"role": "user", "content": parts},
                *messages[2:],
                ANSWER,
            ]
        },
        {"messages": [*messages[:2], {"role": "assistant", "tool_calls": as_text}, messages[3], ANSWER]},
        {"messages": [*messages[:2], {**called, "tool_calls": json.dumps(as_text)}, messages[3], ANSWER]},
        {"messages": [*messages[1:], ANSWER], "system": system},
        {"conversations": [*sharegpt, {"from": "gpt", "value": "hi"}], "system": system},
        {"conversations": [{"from": "system", "value": system}, *sharegpt, {"from": "gpt", "value": "other"}]},
        {"prompt": messages, "completion": [ANSWER]},
        {"prompt": [{"from": "system", "value": system}, *sharegpt], "completion": [ANSWER]},
    ]


@given(system=st.text(min_size=1, max_size=5), question=st.text(max_size=5))
def test_group_key_conversation_in_every_spelling_is_one_group(system: str, question: str) -> None:
    """All of them are read into the same prompt and have the same key; another question has another."""
    spelled = _spelled(system, question)
    read = {tuple((turn.role, turn.content or "") for turn in _messages(value)[:4]) for value in spelled}
    assert len(read) == 1
    keys = {group_key(value, "prompt") for value in spelled}
    others = [*_spelled(system, question + "x"), *_spelled(system + "x", question)]
    assert len(keys) == 1
    assert keys.isdisjoint(group_key(value, "prompt") for value in others)


def _messages(value: dict[str, Any]) -> tuple[Message, ...]:
    record = RecordReader().read(value)
    assert isinstance(record, MessagesRecord)
    return record.messages


@pytest.mark.parametrize(
    "calls", ["no json", [{"name": "f", "arguments": "{"}], ["text"], {"name": "f"}, [{"name": ["f"]}], 3]
)
def test_group_key_calls_that_are_none_are_a_group_of_their_own(calls: Any) -> None:
    """What the reader will refuse does not stop the key, and is not taken for a prompt without calls."""
    turn = {"role": "assistant", "content": "a"}
    keys = {group_key({"messages": [held, ANSWER]}, "prompt") for held in (turn, {**turn, "tool_calls": calls})}
    assert len(keys) == 2


def test_group_key_plain_messages_have_a_known_key() -> None:
    """Golden value: conversations spelled with role and content stay where they were."""
    expected = group_key({"g": [["user", "hello"]]}, "g")
    assert group_key({"messages": [USER, ANSWER]}, "prompt") == expected
