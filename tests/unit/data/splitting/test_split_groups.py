"""What records are grouped by: fields, paths, and the prompt of every shape."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.data.splitting.split_groups import group_key, prompt_of, record_key

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
