"""Conversations: roles, messages, tool calls, and the rules for their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from codex_ml.data.problems import shown_name
from codex_ml.data.readers.json import parse_object

Role = Literal["system", "user", "assistant", "tool"]

# A call that is a turn of its own is what the assistant wrote.
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}


def role_key(turn: Mapping[str, Any]) -> str:
    """Return the key under which a turn names its speaker: ``role``, or ``from`` as ShareGPT has it."""
    return "from" if "role" not in turn and "from" in turn else "role"


def content_key(turn: Mapping[str, Any]) -> str:
    """Return the key under which a turn has its words: ``content``, or ``value`` as ShareGPT has it."""
    return "value" if "content" not in turn and "value" in turn else "content"


def role_of(turn: Mapping[str, Any]) -> Role | None:
    """Return the role of a turn's speaker; None where it is none that is known."""
    said_by = turn.get(role_key(turn))
    # A speaker may be any JSON value here: what is no string is no speaker, and need not be hashable.
    return _ROLES.get(said_by) if isinstance(said_by, str) else None


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


OnUnused = Callable[[str], None]

_READ_KEYS = frozenset(
    {"role", "from", "content", "value", "tool_calls", "function_call", "name", "tool_call_id", "weight", "train"}
)
# Keys that hold a part of what was said; to leave one out would change the conversation.
_SAID_OTHERWISE = {
    "reasoning_content": "write the thoughts into the content, as the model is to write them",
    "reasoning": "write the thoughts into the content, as the model is to write them",
    "thinking": "write the thoughts into the content, as the model is to write them",
    "refusal": "write the refusal into the content",
    "images": "only text is read",
    "image": "only text is read",
    "audio": "only text is read",
    "videos": "only text is read",
}


def read_turns(value: Any, path: str, on_unused: OnUnused) -> tuple[Message, ...]:
    """Return the messages of a conversation.

    A turn is ``{"role", "content"}`` or ``{"from", "value"}``; further keys that hold something are told to
    ``on_unused`` as ``<path>.<key>``. Content may be a list of parts of type text, which are joined as they stand.

    Raises
    ------
    ValueError
        If it is no list of turns; the message names places and keys and holds no content.
    """
    if not isinstance(value, list):
        raise ValueError(f"{path} is not a list")
    if not value:
        raise ValueError(f"{path} is empty")
    return tuple(_read_turn(turn, f"{path}[{index}]", path, on_unused) for index, turn in enumerate(value))


def read_tools(value: Any, path: str) -> tuple[dict[str, Any], ...]:
    """Return definitions of tools: a list of objects, or its JSON text; bare functions in the form templates expect.

    Raises
    ------
    ValueError
        As `read_turns`.
    """
    if isinstance(value, str):
        value = _parsed(value, path) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        value = [value]
    return tuple(_read_tool(tool, f"{path}[{index}]") for index, tool in enumerate(value))


def _read_turn(turn: Any, path: str, shape: str, on_unused: OnUnused) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f'{path} is not an object, such as {{"role": "user", "content": "…"}}')
    speaker, words = role_key(turn), content_key(turn)
    if speaker not in turn:
        raise ValueError(f"{path}.{speaker} is missing")
    role = role_of(turn)
    if role is None:
        raise ValueError(f"{path}.{speaker} is none of system, user, assistant, tool (nor another name of these)")
    for key, held in turn.items():
        if key not in _READ_KEYS and held not in (None, "", [], {}):
            if key in _SAID_OTHERWISE:
                raise ValueError(f"{path}.{key} is not read; {_SAID_OTHERWISE[key]}")
            on_unused(f"{shape}.{key}")
    calls = _read_calls(turn, path)
    if calls and role != "assistant":
        raise ValueError(f"{path} calls tools, and only the assistant does")
    if words not in turn and not calls:
        raise ValueError(f"{path}.{words} is missing")
    content = _read_content(turn.get(words), f"{path}.{words}", null_allowed=bool(calls))
    if role == "assistant" and not calls and not (content or "").strip():
        raise ValueError(f"{path}.{words} of the assistant is empty")
    return Message(
        role=role,
        content=content,
        tool_calls=calls,
        name=_text_or_none(turn, "name", path),
        tool_call_id=_text_or_none(turn, "tool_call_id", path),
        supervised=_read_weight(turn, path) or role != "assistant",
    )


def _read_content(value: Any, path: str, null_allowed: bool) -> str | None:
    if isinstance(value, str) or (value is None and null_allowed):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{path} is not a string")
    texts: list[str] = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise ValueError(f'{path}[{index}] is not a part of text, such as {{"type": "text", "text": "…"}}')
        if part["type"] != "text":
            raise ValueError(f"{path}[{index}] is of type {shown_name(part['type'])}; only parts of type text are read")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{path}[{index}].text is not a string")
        texts.append(part["text"])
    return "".join(texts)


def _read_calls(turn: Mapping[str, Any], path: str) -> tuple[ToolCall, ...]:
    calls = turn.get("tool_calls")
    if isinstance(calls, str) and calls.strip():
        calls = _parsed(calls, f"{path}.tool_calls")
    legacy = turn.get("function_call")
    if not calls:
        return () if legacy is None else (_read_call(legacy, f"{path}.function_call"),)
    if legacy is not None:
        raise ValueError(f"{path} has tool_calls and function_call; keep one")
    if not isinstance(calls, list):
        raise ValueError(f"{path}.tool_calls is not a list")
    return tuple(_read_call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls))


def _read_call(call: Any, path: str) -> ToolCall:
    if not isinstance(call, dict):
        raise ValueError(f"{path} is not an object")
    if call.get("type") not in (None, "function"):
        raise ValueError(f"{path}.type is not function")
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError(f"{path} does not name a function")
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}
    if not isinstance(arguments, str | dict):
        raise ValueError(f"{path}.arguments is neither an object nor the JSON text of one")
    read = ToolCall(name=function["name"], arguments=arguments, identifier=_text_or_none(call, "id", path))
    try:
        read.argument_object()
    except ValueError:
        raise ValueError(f"{path}.arguments is a string, but not the JSON text of an object") from None
    return read


def _read_tool(tool: Any, path: str) -> dict[str, Any]:
    if isinstance(tool, str):
        tool = _parsed(tool, path)
    if not isinstance(tool, dict):
        raise ValueError(f"{path} is not an object")
    wrapped = {"type": "function", "function": tool} if "function" not in tool and "name" in tool else tool
    function = wrapped.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{path} does not define a function by its name")
    return wrapped


def _read_weight(turn: Mapping[str, Any], path: str) -> bool:
    """Return whether the turn is to be learned: OpenAI's ``weight`` (0 or 1), or ``train`` (true or false)."""
    learned = True
    for key in ("weight", "train"):
        if (weight := turn.get(key)) is None:
            continue
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise ValueError(f"{path}.{key} is neither 0 nor 1")
        learned &= bool(weight)
    return learned


def _text_or_none(value: Mapping[str, Any], key: str, path: str) -> str | None:
    text = value.get(key)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{path}.{key} is not a string")
    return text


def _parsed(text: str, path: str) -> Any:
    """Return the value of a JSON text inside a record, read as strictly as the file itself."""
    try:
        held = parse_object(b'{"value":' + text.encode("utf-8") + b"}")
    except ValueError:
        raise ValueError(f"{path} is a string, but not JSON text") from None
    if len(held) != 1:
        raise ValueError(f"{path} is a string, but not JSON text")
    return held["value"]
