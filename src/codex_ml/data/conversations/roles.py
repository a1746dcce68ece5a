"""Who speaks in a turn, by any of the names that data sets have for the four roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

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


def speaker_key(turn: Mapping[str, Any]) -> str:
    """Return the key under which a turn names its speaker: ``role``, or ``from`` as ShareGPT has it."""
    return "from" if "role" not in turn and "from" in turn else "role"


def words_key(turn: Mapping[str, Any]) -> str:
    """Return the key under which a turn has its words: ``content``, or ``value`` as ShareGPT has it."""
    return "value" if "content" not in turn and "value" in turn else "content"


def role_of(turn: Mapping[str, Any]) -> Role | None:
    """Return the role of a turn's speaker; None where it is none that is known."""
    said_by = turn.get(speaker_key(turn))
    # A speaker may be any JSON value here: what is no string is no speaker, and need not be hashable.
    return _ROLES.get(said_by) if isinstance(said_by, str) else None
