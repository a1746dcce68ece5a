"""Conversations of any known spelling (role and content, from and value, calls of tools) read into messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codex_ml.data.conversations.messages import Message, ToolCall
from codex_ml.data.conversations.roles import role_of, speaker_key, words_key
from codex_ml.data.problems import shown_name
from codex_ml.data.reading.json_strict import parse_object

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
    speaker, words = speaker_key(turn), words_key(turn)
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
