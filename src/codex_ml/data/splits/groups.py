"""What decides the split of a record: its own bytes, a field of it, or the prompt that it gives the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from codex_ml.data.problems import shown_name
from codex_ml.data.readers.json import parse_object
from codex_ml.data.records.chat import content_key, role_key, role_of
from codex_ml.errors import DataError

PROMPT = "prompt"
# What a prompt is made of, in the shapes that have one; `columns` maps these.
PROMPT_FIELDS = (PROMPT, "messages", "conversations", "instruction", "input", "text", "system")

_KEY_BYTES = 32
# A single line that lacks the key may as well be wrong itself.
_FEWEST_TO_JUDGE = 2
_CONVERSATIONS = ("messages", "conversations")
# One encoder for all records: `json.dumps` with options makes a new one for each.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def record_key(raw: bytes) -> bytes:
    """Return the key of a record by itself: a digest of its original bytes, so that exact duplicates share it."""
    return hashlib.blake2b(raw, digest_size=_KEY_BYTES).digest()


def group_key(value: Mapping[str, Any], group_by: str, columns: Mapping[str, str] | None = None) -> bytes:
    """Return the key of a record's group: a digest of the canonical JSON of what it is grouped by.

    Parameters
    ----------
    value : mapping
        The record as it stands in the file.
    group_by : str
        A field; a path into nested objects (``meta.topic``) where no field has that very name; or ``prompt``, which
        is the prompt of a record of any shape (`prompt_of`).
    columns : mapping, optional
        Field of the format -> key in the file, as in ``data.columns``; only ``prompt`` asks.

    Raises
    ------
    ValueError
        If the record has no such field or prompt; the message holds no content.
    """
    grouped = prompt_of(value, columns or {}) if group_by == PROMPT else _field(value, group_by)
    return hashlib.blake2b(_canonical(grouped).encode("ascii"), digest_size=_KEY_BYTES).digest()


def prompt_of(value: Mapping[str, Any], columns: Mapping[str, str]) -> Any:
    """Return what a record gives the model: the same value for the same prompt.

    A field ``prompt`` is the prompt, be it a text or turns. That of a conversation is every turn before the last one
    of the assistant, behind the text of a column ``system``. Of a turn the role, the words and the calls of tools
    count, whichever way they are spelled. That of an instruction is the instruction with its input, that of running
    text the text.

    Raises
    ------
    ValueError
        If the record has none of these shapes.
    """
    if (key := columns.get("prompt", "prompt")) in value:
        given = value[key]
        return _said(given) if _are_turns(given) and given else given
    for shape in _CONVERSATIONS:
        if (key := columns.get(shape, shape)) in value:
            system = value.get(columns.get("system", "system"))
            said = _turns_before_answer(value[key], key)
            return said if system in (None, "") else [("system", system), *said]
    if (key := columns.get("instruction", "instruction")) in value:
        instruction, given = value[key], value.get(columns.get("input", "input"))
        return f"{instruction}\n\n{given}" if isinstance(given, str) and given.strip() else instruction
    if (key := columns.get("text", "text")) in value:
        return value[key]
    raise ValueError(
        f"the record has no prompt to be grouped by ({_names(value)}); known are "
        f"{', '.join(PROMPT_FIELDS)}; name another field, with --group-by or data.split.group_by"
    )


def _turns_before_answer(turns: Any, key: str) -> list[Any]:
    if not _are_turns(turns):
        raise ValueError(f"{shown_name(key)} is not a list of turns, so its prompt is not known")
    answers = [index for index, turn in enumerate(turns) if role_of(turn) == "assistant"]
    return _said(turns[: answers[-1]] if answers else turns)


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(turn, dict) for turn in value)


def _said(turns: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what turns say, the same for every spelling that `read_turns` reads."""
    return [
        (role_of(turn) or turn.get(role_key(turn)), _words(turn.get(content_key(turn))), *_calls(turn))
        for turn in turns
    ]


def _words(content: Any) -> Any:
    if content is None:
        return ""
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return content


def _calls(turn: Mapping[str, Any]) -> list[Any]:
    """Return the calls of tools as name and arguments; what is no call stands for itself."""
    calls = _parsed(turn.get("tool_calls")) or []
    if legacy := turn.get("function_call"):
        calls = [*(calls if isinstance(calls, list) else [calls]), legacy]
    said: list[Any] = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(function, dict) and "name" in function:
            said.append((function["name"], _parsed(function.get("arguments")) or {}))
        else:
            said.append(call)
    return said


def _parsed(value: Any) -> Any:
    """Return the value of a JSON text, as calls and their arguments may be written; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_object(b'{"value":' + value.encode("utf-8") + b"}")["value"] if value.strip() else None
    except ValueError:
        return value


def _field(value: Mapping[str, Any], name: str) -> Any:
    if name in value:
        return value[name]
    found: Any = value
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise ValueError(f"{_lacking(name)} (--group-by, data.split.group_by); {_names(value)}")
        found = found[part]
    return found


def _lacking(name: str) -> str:
    return f"the group key {shown_name(name)} is missing"


def refuse_unknown_group(file: str, faults: Sequence[str], record_count: int, group_by: str | None) -> None:
    """Stop where every record so far lacks the key to group by: then it is the option that is wrong, not the lines.

    Parameters
    ----------
    file : str
        Name of the file.
    faults : sequence of str
        What is wrong with its first lines.
    record_count : int
        How many lines these are.
    group_by : str, optional
        The key.

    Raises
    ------
    DataError
        With the keys that exist.
    """
    if group_by is None or len(faults) != record_count or record_count < _FEWEST_TO_JUDGE:
        return
    lacking = _lacking(group_by)
    if all(fault.startswith(lacking) for fault in faults):
        raise DataError(
            f"{file}: {lacking} in every record so far ({record_count})",
            why=faults[0].rpartition("; ")[2].replace("the line has", "the first record has"),
            fix="name a key that is there with --group-by (data.split.group_by), or prompt, or leave it out",
        )


def _names(value: Mapping[str, Any]) -> str:
    names = [shown_name(name) for name in list(value)[:10]]
    return f"the line has {', '.join(names)}" if names else "the line has no field"
