"""Every string of a conversation passes the filters, wherever in it it stands."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.records.chat import (
    Message,
    MessagesRecord,
    ToolCall,
    map_conversation,
    map_json,
    redacted_sides,
)
from codex_ml.data.records.formats import Record, RecordFormat, map_strings, to_record
from tiers import examples

CARD = 4_000_000_000_000_002
LINE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "s0"},
        {"role": "user", "name": "n1", "content": [{"type": "text", "text": "c1"}]},
        {
            "role": "assistant",
            "content": "c2",
            "tool_calls": [
                {"id": "i2", "function": {"name": "f2", "arguments": {"k2": ["v2", {"deep2": "w2"}], "card": CARD}}},
                {"id": "j2", "function": {"name": "g2", "arguments": '{"k3": {"k4": ["v3", 1.5, true, null]}}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "i2", "name": "t3", "content": "c3"},
        {"role": "assistant", "content": "c4"},
    ],
    "tools": [{"name": "d1", "description": "d2", "parameters": {"properties": {"d3": {"enum": ["d4"]}}}}],
}
PLANTED = [
    *("s0", "n1", "c1", "c2", "i2", "f2", "k2", "v2", "deep2", "w2", "j2", "g2", "k3", "k4", "v3"),
    *("t3", "c3", "c4", "d1", "d2", "d3", "d4"),
]


def test_map_strings_sees_every_string_of_a_conversation() -> None:
    """Names, ids, keys and values of arguments however they are written, definitions of tools, and numbers."""
    seen: dict[str, list[str]] = {}

    def change(field: str, text: str) -> str:
        seen.setdefault(text, []).append(field)
        return text

    record = to_record(LINE, "messages")
    assert map_strings(record, change) == record
    assert set(PLANTED) <= seen.keys()
    assert str(CARD) in seen
    assert seen["w2"] == ["messages[2].tool_calls[0].arguments"]
    assert seen["t3"] == ["messages[3].name"]
    assert seen["d4"] == ["tools[0]"]


def test_map_strings_what_is_changed_is_changed_everywhere() -> None:
    """No planted string is left in what the template is given."""

    def change(_field: str, text: str) -> str:
        return "[gone]" if text in {*PLANTED, str(CARD)} else text

    changed = map_strings(to_record(LINE, "messages"), change)
    assert isinstance(changed, MessagesRecord)
    left = json.dumps(changed.model_dump(), ensure_ascii=False)
    assert [planted for planted in [*PLANTED, str(CARD)] if planted in left] == []
    assert json.loads(str(changed.messages[2].tool_calls[1].arguments)) == {
        "[gone]": {"[gone]": ["[gone]", 1.5, True, None]}
    }


def test_map_conversation_untouched_arguments_keep_their_characters() -> None:
    """Only what a filter changed is written anew."""
    call = ToolCall(name="f", arguments='{ "a" :1.10,"b":"\\u00e9" }')
    record = MessagesRecord(messages=(Message(role="assistant", tool_calls=(call,)),))
    assert map_conversation(record, lambda _field, text: text).messages[0].tool_calls == (call,)


def test_map_json_keys_that_become_equal_are_kept_apart() -> None:
    """A redaction loses no entry."""
    assert map_json({"a": 1, "b": 2, "c": [3]}, lambda text: "x" if text.isalpha() else text) == {
        "x": 1,
        "x (2)": 2,
        "x (3)": [3],
    }


def test_map_json_very_many_keys_that_become_equal_take_no_time() -> None:
    """Of 50,000 none is tried twice: the other way they would take minutes."""
    mapped = map_json({f"key {number}": True for number in range(50_000)}, lambda _text: "x")
    assert list(mapped) == ["x", *(f"x ({number})" for number in range(2, 50_001))]


def test_redacted_sides_tells_prompt_from_answer() -> None:
    """Tools and all turns before the last answer are the prompt; what follows the answer is neither."""
    turns = tuple(Message(role=role, content="x") for role in ("user", "assistant", "user", "assistant", "user"))
    record = MessagesRecord(messages=turns)
    assert redacted_sides(record, ["tools[7]"]) == (True, False)
    assert redacted_sides(record, ["messages[1].tool_calls[0].arguments"]) == (True, False)
    assert redacted_sides(record, ["messages[3].tool_calls[0].name"]) == (False, True)
    assert redacted_sides(record, ["messages[0].content", "messages[3].content"]) == (True, True)
    assert redacted_sides(record, ["messages[4].content"]) == (False, False)
    assert redacted_sides(record, []) == (False, False)


def _strings_of(record: Record) -> list[str]:
    kept: list[str] = []

    def keep(_field: str, text: str) -> str:
        kept.append(text)
        return text

    map_strings(record, keep)
    return kept


NAUGHTY = st.text(st.sampled_from("ae\u0301é \t\r\n\u200b\ufeff\u2028\xa0\\\"'<|}{😀"), min_size=1, max_size=12)


@examples(60)
@given(text=NAUGHTY)
def test_to_record_text_of_any_shape_is_kept_character_for_character(text: str) -> None:
    """Nothing is trimmed, normalised or escaped again: blanks at the ends, NFD, tabs, returns, zero-width, BOM."""
    said = f"{text}x{text}"
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
    lines: list[tuple[dict[str, Any], RecordFormat]] = [
        ({"prompt": text, "completion": said}, "prompt_completion"),
        ({"messages": turns}, "messages"),
        ({"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": said}]}, "conversations"),
        ({"prompt": turns[:1], "completion": turns[1:]}, "prompt_completion"),
        ({"text": said}, "text"),
        ({"instruction": said, "input": text, "output": said}, "instruction"),
    ]
    for line, record_format in lines:
        kept = _strings_of(to_record(line, record_format))
        if record_format == "instruction":
            middle = f"\n\n{text}" if text.strip() else ""
            assert kept == [f"{said}{middle}\n\n", said]
        else:
            assert kept == ([said] if record_format == "text" else [text, said])
