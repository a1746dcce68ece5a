"""The shapes of records: which one a file has, and each line checked and brought into one of three forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codex_ml.data.problems import shown_name
from codex_ml.errors import DataError

RecordFormat = Literal["prompt_completion", "messages", "text", "instruction"]
Role = Literal["system", "user", "assistant", "tool"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PromptCompletionRecord(_Model):
    """A prompt and the completion to learn; only the completion is supervised."""

    prompt: str
    completion: str


class Message(_Model):
    """One turn of a conversation."""

    role: Role
    content: str


class MessagesRecord(_Model):
    """A conversation; what the assistant says in it is supervised."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]


class TextRecord(_Model):
    """Running text; all of it is supervised."""

    text: str


class _InstructionRecord(_Model):
    """An instruction, perhaps with an input, and the output to learn."""

    instruction: str
    input: str = ""
    output: str


Record: TypeAlias = PromptCompletionRecord | MessagesRecord | TextRecord

_MODELS: dict[RecordFormat, type[_Model]] = {
    "prompt_completion": PromptCompletionRecord,
    "messages": MessagesRecord,
    "text": TextRecord,
    "instruction": _InstructionRecord,
}
REQUIRED_FIELDS: dict[RecordFormat, tuple[str, ...]] = {
    "prompt_completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
    "instruction": ("instruction", "output"),
}
# Without content in these there is nothing to learn from the record.
_MUST_HAVE_CONTENT: dict[RecordFormat, tuple[str, ...]] = {
    "prompt_completion": ("completion",),
    "messages": (),
    "text": ("text",),
    "instruction": ("instruction", "output"),
}
_FIELDS: dict[RecordFormat, tuple[str, ...]] = {name: tuple(model.model_fields) for name, model in _MODELS.items()}
_MOST_UNUSED_COLUMNS = 50
_OTHER_TOOLS = {
    "conversations": "ShareGPT's conversations (from, value) are not read; rewrite them as messages (role, content)",
    "dialog": "rewrite the turns as messages (role, content)",
}


class RecordReader:
    """Turns the lines of one file, which all have one shape, into records.

    Parameters
    ----------
    record_format : str
        One of the formats, or ``"auto"``: the shape of the first line decides.
    columns : mapping
        Field of the format -> key in the file, such as ``{"prompt": "question", "completion": "answer"}``.

    Raises
    ------
    DataError
        If a column is mapped to a field that no format has.
    """

    def __init__(self, record_format: str = "auto", columns: Mapping[str, str] | None = None) -> None:
        self.columns = dict(columns or {})
        self.format: RecordFormat | None = None if record_format == "auto" else _known_format(record_format)
        self.unused_columns: dict[str, int] = {}
        known = _FIELDS[self.format] if self.format else {field for fields in _FIELDS.values() for field in fields}
        for field in self.columns:
            if field not in known:
                raise DataError(
                    f"data.columns.{field}: no such field in format {record_format}",
                    why=f"fields are {', '.join(sorted(known))}",
                    fix="write data.columns={field: key in the file}, such as {prompt: question, completion: answer}",
                )

    def read(self, value: Mapping[str, Any]) -> Record:
        """Return the record of one line.

        Raises
        ------
        ValueError
            If the line has another shape than the file, a key is missing or of another type, or nothing is to be
            learned from it; the message names keys and holds no content.
        """
        if self.format is None:
            self.format = detect_format(value, self.columns)
        return to_record(value, self.format, self.columns, self._note_unused)

    def _note_unused(self, key: str) -> None:
        # The counts are written to the account, which must not grow with the data nor hold any of it.
        name = shown_name(key).strip("'")
        if name not in self.unused_columns and len(self.unused_columns) >= _MOST_UNUSED_COLUMNS:
            name = "(further keys)"
        self.unused_columns[name] = self.unused_columns.get(name, 0) + 1


def detect_format(value: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> RecordFormat:
    """Return the format whose required fields a line has, after ``columns`` are mapped.

    Raises
    ------
    ValueError
        If no format fits, or more than one does.
    """
    columns = columns or {}
    present = {field for field in value if field not in columns} | {
        field for field, key in columns.items() if key in value
    }
    fitting: list[RecordFormat] = [name for name, fields in REQUIRED_FIELDS.items() if set(fields) <= present]
    if columns:
        # A mapping says which format is meant, even where the file has further columns that would fit another.
        fitting = [name for name in fitting if set(columns) <= set(_FIELDS[name])]
    if len(fitting) == 1:
        return fitting[0]
    keys = ", ".join(shown_name(key) for key in list(value)[:10]) or "no keys"
    if fitting:
        raise ValueError(f"the line fits more than one format ({', '.join(fitting)}); set data.format")
    hint = next((text for key, text in _OTHER_TOOLS.items() if key in value), "")
    wanted = "; ".join("+".join(fields) for fields in REQUIRED_FIELDS.values())
    hint = hint or f"expected one of: {wanted}; map other names with data.columns"
    raise ValueError(f"the line has {keys}, which is no format known here ({hint})")


def to_record(
    value: Mapping[str, Any],
    record_format: RecordFormat,
    columns: Mapping[str, str] | None = None,
    on_unused: Callable[[str], None] = lambda _key: None,
) -> Record:
    r"""Check one line against a format and return its record.

    An instruction becomes prompt and completion: ``prompt = instruction + ("\n\n" + input if input) + "\n\n"``,
    ``completion = output``; an empty input leaves nothing behind. A key that the format does not use is reported to
    ``on_unused``.

    Raises
    ------
    ValueError
        As `RecordReader.read`.
    """
    columns = columns or {}
    mapped: dict[str, Any] = {}
    for field in _FIELDS[record_format]:
        key = columns.get(field, field)
        if key in value:
            mapped[field] = value[key]
        elif field in REQUIRED_FIELDS[record_format]:
            raise ValueError(f"key {shown_name(key)} is missing (format {record_format})")
    used = {columns.get(field, field) for field in mapped}
    for key in value:
        if key not in used:
            on_unused(key)
    if record_format == "instruction" and mapped.get("input", "") is None:
        mapped["input"] = ""
    try:
        record = _MODELS[record_format].model_validate(_with_tuples(mapped))
    except ValidationError as error:
        raise ValueError(_explain(error, columns)) from None
    for field in _MUST_HAVE_CONTENT[record_format]:
        if not getattr(record, field).strip():
            raise ValueError(f"{_named(field, columns)} is empty")
    if isinstance(record, _InstructionRecord):
        prompt = record.instruction + (f"\n\n{record.input}" if record.input.strip() else "") + "\n\n"
        return PromptCompletionRecord(prompt=prompt, completion=record.output)
    if isinstance(record, MessagesRecord):
        for index, message in enumerate(record.messages):
            if message.role == "assistant" and not message.content.strip():
                raise ValueError(f"{_named('messages', columns)}[{index}].content of the assistant is empty")
    assert isinstance(record, PromptCompletionRecord | MessagesRecord | TextRecord)
    return record


def map_strings(record: Record, change: Callable[[str, str], str]) -> Record:
    """Return the record with every string replaced by ``change(field, text)``; fields as ``messages[2].content``."""
    if isinstance(record, MessagesRecord):
        return MessagesRecord(
            messages=tuple(
                Message(role=message.role, content=change(f"messages[{index}].content", message.content))
                for index, message in enumerate(record.messages)
            )
        )
    if isinstance(record, TextRecord):
        return TextRecord(text=change("text", record.text))
    return PromptCompletionRecord(
        prompt=change("prompt", record.prompt), completion=change("completion", record.completion)
    )


def _known_format(name: str) -> RecordFormat:
    for known in _MODELS:
        if known == name:
            return known
    raise DataError(f"data.format: unknown format {name!r}", fix=f"use auto, {', '.join(_MODELS)}")


def _named(field: str, columns: Mapping[str, str]) -> str:
    return f"{field} (column {shown_name(columns[field])})" if field in columns else field


def _with_tuples(mapped: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the list of messages as a tuple, which strict validation asks for."""
    messages = mapped.get("messages")
    return {**mapped, "messages": tuple(messages)} if isinstance(messages, list) else mapped


def _explain(error: ValidationError, columns: Mapping[str, str]) -> str:
    """Return the first fault of a validation, by key and type, without the value."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    location = list(problem["loc"])
    path = _named(str(location[0]), columns)
    for part in location[1:]:
        path += (
            f"[{part}]" if isinstance(part, int) else f".{part if part in Message.model_fields else shown_name(part)}"
        )
    if problem["type"] == "missing":
        return f"{path} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{path} is not read; a message has role and content only (write tool calls into the content)"
    if problem["type"] == "literal_error":
        return f"{path} is none of system, user, assistant, tool"
    if problem["type"] == "too_short":
        return f"{path} is empty"
    kind = {"string_type": "a string", "tuple_type": "a list", "model_type": "an object"}.get(problem["type"])
    return f"{path} is not {kind}" if kind else f"{path}: {problem['type']}"
