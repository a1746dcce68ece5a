"""Conversations as records: turns, calls of tools, definitions of tools, and every string of them visited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from codex_ml.data.conversations.roles import Role
from codex_ml.data.reading.json_strict import parse_object


class RecordModel(BaseModel):
    """What all records share: no further key, no conversion, no change afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ToolCall(RecordModel):
    """A function that the assistant calls; ``arguments`` are an object, or the JSON text of one as the file has it."""

    name: Annotated[str, Field(min_length=1)]
    arguments: str | dict[str, Any] = Field(default_factory=dict)
    identifier: str | None = None

    def argument_object(self) -> dict[str, Any]:
        """Return the arguments as an object, whichever way they are written.

        Raises
        ------
        ValueError
            If they are the text of none.
        """
        return self.arguments if isinstance(self.arguments, dict) else parse_object(self.arguments.encode("utf-8"))


class Message(RecordModel):
    """One turn of a conversation; ``supervised`` is false where the file says that this answer is not to be learned."""

    role: Role
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    supervised: bool = True


class MessagesRecord(RecordModel):
    """A conversation, and the tools that the assistant may call; what the assistant says in it is supervised."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: tuple[dict[str, Any], ...] = ()


def last_assistant_turn(messages: Iterable[Message]) -> int | None:
    """Return which message is the answer of a conversation: the last of the assistant; None where it says nothing."""
    return max((index for index, message in enumerate(messages) if message.role == "assistant"), default=None)


def map_conversation(record: MessagesRecord, change: Callable[[str, str], str]) -> MessagesRecord:
    """Return the conversation with every string replaced by ``change(field, text)``.

    Fields are named as ``messages[2].content``, ``messages[3].tool_calls[0].arguments`` or ``tools[1]``; the last two
    stand for every string inside, keys and numbers included: a number reaches the model as its digits.
    """
    messages = tuple(
        _map_message(message, f"messages[{index}]", change) for index, message in enumerate(record.messages)
    )
    tools = tuple(map_json(tool, _at(f"tools[{index}]", change)) for index, tool in enumerate(record.tools))
    return MessagesRecord(messages=messages, tools=tools)


def redacted_sides(record: MessagesRecord, redacted_fields: Iterable[str]) -> tuple[bool, bool]:
    """Tell whether any of the fields stands before the last answer of a conversation, and whether any stands in it."""
    last = last_assistant_turn(record.messages)
    before = len(record.messages) if last is None else last
    in_prompt = in_answer = False
    for field in redacted_fields:
        shape, _, rest = field.partition("[")
        position = int(rest.partition("]")[0])
        in_prompt |= shape == "tools" or position < before
        in_answer |= shape == "messages" and position == last
    return in_prompt, in_answer


def map_json(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every string in it changed, keys and numbers too; equal keys are told apart again."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_json(item, change) for item in value]
    if isinstance(value, dict):
        mapped: dict[str, Any] = {}
        # Thousands of keys may become equal: none of their numbers is tried twice.
        counts: dict[str, int] = {}
        for key, item in value.items():
            name = changed = change(key)
            count = counts.get(changed, 1)
            while name in mapped:
                count += 1
                name = f"{changed} ({count})"
            counts[changed] = count
            mapped[name] = map_json(item, change)
        return mapped
    if value is None or isinstance(value, bool):
        return value
    digits = json.dumps(value)
    changed = change(digits)
    return value if changed == digits else changed


def _map_message(message: Message, path: str, change: Callable[[str, str], str]) -> Message:
    def changed(field: str, text: str | None) -> str | None:
        return None if text is None else change(f"{path}.{field}", text)

    calls = tuple(
        _map_call(call, f"{path}.tool_calls[{index}]", change) for index, call in enumerate(message.tool_calls)
    )
    return Message(
        role=message.role,
        content=changed("content", message.content),
        tool_calls=calls,
        name=changed("name", message.name),
        tool_call_id=changed("tool_call_id", message.tool_call_id),
        supervised=message.supervised,
    )


def _map_call(call: ToolCall, path: str, change: Callable[[str, str], str]) -> ToolCall:
    arguments = call.arguments
    whole = call.argument_object()
    mapped: dict[str, Any] = map_json(whole, _at(f"{path}.arguments", change))
    if isinstance(arguments, dict):
        arguments = mapped
    elif mapped != whole:
        # What is not touched keeps the very characters of the file.
        arguments = json.dumps(mapped, ensure_ascii=False)
    return ToolCall(
        name=change(f"{path}.name", call.name),
        arguments=arguments,
        identifier=None if call.identifier is None else change(f"{path}.id", call.identifier),
    )


def _at(field: str, change: Callable[[str, str], str]) -> Callable[[str], str]:
    return lambda text: change(field, text)
