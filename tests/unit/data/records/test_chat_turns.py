"""Conversations of every known spelling become the same messages; what cannot be read is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from codex_ml.data.records.chat import Message, MessagesRecord, ToolCall, read_tools, read_turns
from codex_ml.data.records.formats import RecordReader, detect_format, to_record

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":  "Köln"}'}}
WEATHER = {"name": "weather", "description": "tells it", "parameters": {"type": "object", "properties": {}}}


def _turns(*turns: Any) -> tuple[Message, ...]:
    return read_turns(list(turns), "messages", lambda _key: None)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "user", "content": "x"}, Message(role="user", content="x")),
        ({"role": "developer", "content": "x"}, Message(role="system", content="x")),
        ({"from": "human", "value": "x"}, Message(role="user", content="x")),
        ({"from": "gpt", "value": "x"}, Message(role="assistant", content="x")),
        ({"from": "system", "value": "x"}, Message(role="system", content="x")),
        ({"from": "tool", "value": "x"}, Message(role="tool", content="x")),
        ({"from": "observation", "value": "x"}, Message(role="tool", content="x")),
        ({"from": "function_call", "value": '{"name": 1}'}, Message(role="assistant", content='{"name": 1}')),
        ({"role": "function", "name": "f", "content": "4"}, Message(role="tool", content="4", name="f")),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
            Message(role="tool", content="4", tool_call_id="c1"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": " a"}, {"type": "text", "text": "b\n"}]},
            Message(role="user", content=" ab\n"),
        ),
        ({"role": "assistant", "content": "x", "weight": 0}, Message(role="assistant", content="x", supervised=False)),
        ({"role": "assistant", "content": "x", "weight": 1.0}, Message(role="assistant", content="x")),
        (
            {"from": "gpt", "value": "x", "train": False},
            Message(role="assistant", content="x", supervised=False),
        ),
        ({"from": "human", "value": "x", "weight": 0}, Message(role="user", content="x")),
        (
            {"role": "assistant", "content": "x", "tool_calls": None, "name": None, "weight": None, "images": []},
            Message(role="assistant", content="x"),
        ),
    ],
)
def test_read_turns_any_spelling_becomes_the_same_message(turn: dict[str, Any], expected: Message) -> None:
    """OpenAI's, ShareGPT's and their cousins' words for the same things."""
    assert _turns(turn) == (expected,)


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [{**CALL["function"], "id": "c1"}]},
        {
            "role": "assistant",
            "tool_calls": '[{"id": "c1", "function": {"name": "weather", "arguments": "{\\"city\\":  \\"Köln\\"}"}}]',
        },
    ],
    ids=["null", "absent", "flat", "text"],
)
def test_read_turns_tool_calls_keep_the_text_of_their_arguments(turn: dict[str, Any]) -> None:
    """Content may be null or absent beside calls; arguments given as text stay character for character."""
    call = ToolCall(name="weather", arguments='{"city":  "Köln"}', identifier="c1")
    assert _turns(turn) == (Message(role="assistant", content=None, tool_calls=(call,)),)
    assert call.argument_object() == {"city": "Köln"}


@pytest.mark.parametrize(
    ("arguments", "expected"), [({"n": 1}, {"n": 1}), (None, {}), ("", {}), (" ", {}), ("{}", "{}")]
)
def test_read_turns_function_call_of_old_is_a_tool_call(arguments: Any, expected: Any) -> None:
    """OpenAI's earlier form has one call and no list; no arguments are an empty object."""
    turn = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": arguments}}
    assert _turns(turn)[0].tool_calls == (ToolCall(name="f", arguments=expected),)


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "SECRET", "content": "x"}, r"\[0\].role is none of system, user"),
        ({"from": "SECRET", "value": "x"}, r"\[0\].from is none of system, user"),
        ({"from": ["SECRET"], "value": "x"}, r"\[0\].from is none of"),
        ({"value": "SECRET"}, r"\[0\].role is missing"),
        ({"from": "gpt"}, r"\[0\].content is missing"),
        ({"from": "gpt", "value": " \n"}, r"\[0\].value of the assistant is empty"),
        ({"role": "assistant", "content": None}, r"\[0\].content is not a string"),
        ({"role": "user", "content": None}, r"\[0\].content is not a string"),
        ({"role": "user", "content": 7}, r"\[0\].content is not a string"),
        ({"role": "user", "content": ["SECRET"]}, r"\[0\].content\[0\] is not a part of text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "SECRET"}}]},
            r"\[0\].content\[0\] is of type 'image_url'; only parts of type text",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 7}]}, r"\[0\].content\[0\].text is not a string"),
        ({"role": "assistant", "content": "x", "reasoning_content": "SECRET"}, r"\.reasoning_content is not read"),
        ({"role": "user", "content": "x", "images": ["SECRET"]}, r"\.images is not read; only text"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "only the assistant does"),
        ({"role": "assistant", "tool_calls": ["SECRET"]}, r"tool_calls\[0\] is not an object"),
        ({"role": "assistant", "tool_calls": {"a": "SECRET"}}, "tool_calls is not a list"),
        ({"role": "assistant", "tool_calls": "SECRET"}, "is a string, but not JSON text"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "does not name a function"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, "type is not function"),
        ({"role": "assistant", "tool_calls": [CALL], "function_call": {"name": "f"}}, "keep one"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "SECRET"}}, "not the JSON text of an obj"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": '{"a":1,"a":2}'}}, "not the JSON text of"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": [1]}}, "neither an object nor"),
        ({"role": "assistant", "content": "x", "weight": 0.5}, "weight is neither 0 nor 1"),
        ({"role": "assistant", "content": "x", "weight": "SECRET"}, "weight is neither 0 nor 1"),
        ({"role": "tool", "content": "x", "name": 7}, "name is not a string"),
    ],
)
def test_read_turns_what_cannot_be_read_is_named_without_its_content(turn: dict[str, Any], reason: str) -> None:
    """Nothing that was said is left out in silence, and no value is shown."""
    with pytest.raises(ValueError, match=reason) as caught:
        _turns(turn)
    assert "SECRET" not in str(caught.value)


def test_read_turns_further_keys_are_told_and_empty_ones_are_not() -> None:
    """What says nothing needs no count."""
    told: list[str] = []
    read_turns([{"role": "user", "content": "x", "id": 7, "lang": "en", "seen": None}], "messages", told.append)
    assert told == ["messages.id", "messages.lang"]


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "function": WEATHER}],
        [WEATHER],
        WEATHER,
        '[{"name": "weather", "description": "tells it", "parameters": {"type": "object", "properties": {}}}]',
        ['{"name": "weather", "description": "tells it", "parameters": {"type": "object", "properties": {}}}'],
    ],
    ids=["wrapped", "bare", "single", "text", "texts"],
)
def test_read_tools_any_spelling_becomes_the_form_of_templates(tools: Any) -> None:
    """Hub sets hold tools as JSON text, because a table has no column for any object."""
    assert read_tools(tools, "tools") == ({"type": "function", "function": WEATHER},)


@pytest.mark.parametrize("nothing", [None, "", " ", [], "[]", "null"])
def test_read_tools_nothing_is_no_tool(nothing: Any) -> None:
    """An empty column is no fault."""
    assert read_tools(nothing, "tools") == ()


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("SECRET", "is a string, but not JSON text"),
        ('[1], "more": [2]', "is a string, but not JSON text"),
        ([7], r"tools\[0\] is not an object"),
        ([{"type": "code_interpreter"}], r"tools\[0\] does not define a function"),
        ([{"function": {"name": 7}}], r"tools\[0\] does not define a function"),
    ],
)
def test_read_tools_what_defines_no_function_is_refused(tools: Any, reason: str) -> None:
    """A tool without a name can be called by nobody."""
    with pytest.raises(ValueError, match=reason) as caught:
        read_tools(tools, "tools")
    assert "SECRET" not in str(caught.value)


HUMAN, GPT = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
SYSTEM = Message(role="system", content="be kind")
PAIR = (Message(role="user", content="hi"), Message(role="assistant", content="hello"))


@pytest.mark.parametrize(
    ("line", "columns", "expected"),
    [
        ({"conversations": [HUMAN, GPT]}, {}, MessagesRecord(messages=PAIR)),
        ({"conversations": [USER, ASSISTANT]}, {}, MessagesRecord(messages=PAIR)),
        ({"messages": [HUMAN, GPT]}, {}, MessagesRecord(messages=PAIR)),
        ({"turns": [HUMAN, GPT]}, {"messages": "turns"}, MessagesRecord(messages=PAIR)),
        ({"conversations": [USER, ASSISTANT]}, {"messages": "conversations"}, MessagesRecord(messages=PAIR)),
        ({"conversation": [HUMAN, GPT]}, {"conversations": "conversation"}, MessagesRecord(messages=PAIR)),
        ({"conversations": [HUMAN, GPT], "system": "be kind"}, {}, MessagesRecord(messages=(SYSTEM, *PAIR))),
        ({"conversations": [HUMAN, GPT], "system": "", "tools": "[]"}, {}, MessagesRecord(messages=PAIR)),
        (
            {"messages": [USER, ASSISTANT], "functions": [WEATHER], "tools": None},
            {},
            MessagesRecord(messages=PAIR, tools=({"type": "function", "function": WEATHER},)),
        ),
        ({"prompt": "told elsewhere", "messages": [USER, ASSISTANT]}, {}, MessagesRecord(messages=PAIR)),
        ({"prompt": [USER], "completion": [ASSISTANT]}, {}, MessagesRecord(messages=PAIR)),
    ],
)
def test_record_reader_conversation_of_any_set_is_one_record(
    line: dict[str, Any], columns: dict[str, str], expected: MessagesRecord
) -> None:
    """ShareGPT, OpenAI, Hermes, UltraChat and TRL say the same in other columns."""
    assert RecordReader("auto", columns).read(line) == expected


def test_to_record_conversational_pair_learns_the_completion_alone() -> None:
    """Answers that stand in the prompt are given, not learned."""
    line = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
    record = to_record(line, "prompt_completion")
    assert isinstance(record, MessagesRecord)
    assert [message.supervised for message in record.messages] == [True, False, True, True]
    with pytest.raises(ValueError, match="completion is not a list"):
        to_record({"prompt": [USER], "completion": "hello"}, "prompt_completion")
    with pytest.raises(ValueError, match="prompt is not a string"):
        to_record({"prompt": {"a": 1}, "completion": [ASSISTANT]}, "prompt_completion")
    with pytest.raises(ValueError, match="completion does not end with a turn of the assistant"):
        to_record({"prompt": [USER], "completion": [ASSISTANT, USER]}, "prompt_completion")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            {"messages": [{"role": "system", "content": "a"}, USER], "system": "b"},
            "a system turn at the start are both set",
        ),
        ({"messages": [USER], "system": 7}, "system is not a string"),
        ({"messages": [USER], "tools": [WEATHER], "functions": [WEATHER]}, "tools and functions; keep one"),
    ],
)
def test_to_record_what_stands_beside_the_turns_must_agree(line: dict[str, Any], reason: str) -> None:
    """Two of a kind cannot both be meant."""
    with pytest.raises(ValueError, match=reason):
        to_record(line, "messages")


def test_to_record_one_instance_is_its_own_input_and_output() -> None:
    """Self-instruct nests what Alpaca holds flat; more instances than one are more records than one."""
    line = {"id": 1, "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]}
    assert detect_format(line) == "instruction"
    flat = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert to_record(line, "instruction") == to_record(flat, "instruction")
    for instances, reason in (
        ([], "instances holds 0"),
        ([{"output": "1"}, {"output": "2"}], "instances holds 2, and a line is one record"),
        ([{"input": "1"}], r"instances\[0\].output is missing"),
        (["SECRET"], "instances is not a list of objects"),
    ):
        with pytest.raises(ValueError, match=reason):
            to_record({"instruction": "Add.", "instances": instances}, "instruction")


@pytest.mark.parametrize("field", ["history", "system"])
def test_to_record_instruction_with_more_than_one_turn_is_refused(field: str) -> None:
    """An earlier conversation is a part of the prompt; an empty column of that name is nothing."""
    line = {"instruction": "Add.", "input": "", "output": "3"}
    for nothing in (None, "", []):
        assert to_record({**line, field: nothing}, "instruction") == to_record(line, "instruction")
    with pytest.raises(ValueError, match=f"{field} is not read in format instruction"):
        to_record({**line, field: [["SECRET", "b"]]}, "instruction")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ({"instruction": "i", "context": "", "response": "r", "category": "c"}, "{input: context, output: response}"),
        ({"question": "q", "answer": "a"}, "{prompt: question, completion: answer}"),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, "{completion: chosen}"),
        ({"chosen": [USER], "rejected": [USER]}, "{messages: chosen}"),
        ({"system": "s", "chat": "USER: …"}, "{text: chat}"),
        ({"system_prompt": "s", "question": "q", "response": "r"}, "{prompt: question, completion: response}"),
        ({"message_id": "1", "parent_id": None, "text": "hi", "role": "prompter"}, "message of a tree"),
    ],
)
def test_detect_format_well_known_set_is_told_what_to_write(line: dict[str, Any], advice: str) -> None:
    """Dolly, GSM8K, preference pairs, Glaive, OpenAssistant: the names found, and the line to write."""
    with pytest.raises(ValueError, match="the line") as caught:
        detect_format(line)
    assert advice in str(caught.value)
    written = str(caught.value).partition("data.columns={")[2].partition("}")[0]
    if written and "tree" not in advice and "chat" not in line:
        columns = dict(pair.split(": ") for pair in written.split(", "))
        assert detect_format(line, columns)
