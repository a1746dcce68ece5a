"""The shapes of records: which one a file has, and each line checked and brought into one of three forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from codex_ml.data.problems import shown_name
from codex_ml.data.records.chat import MessagesRecord, RecordModel, map_conversation, read_tools, read_turns
from codex_ml.errors import DataError

RecordFormat = Literal["prompt_completion", "messages", "conversations", "text", "instruction"]


class PromptCompletionRecord(RecordModel):
    """A prompt and the completion to learn; only the completion is supervised."""

    prompt: str
    completion: str


class TextRecord(RecordModel):
    """Running text; all of it is supervised."""

    text: str


class _InstructionRecord(RecordModel):
    """An instruction, perhaps with an input, and the output to learn."""

    instruction: str
    input: str = ""
    output: str


Record: TypeAlias = PromptCompletionRecord | MessagesRecord | TextRecord

_MODELS: dict[str, type[RecordModel]] = {
    "prompt_completion": PromptCompletionRecord,
    "text": TextRecord,
    "instruction": _InstructionRecord,
}
# A line has a format if it has all fields of one of these.
REQUIRED_FIELDS: dict[RecordFormat, tuple[tuple[str, ...], ...]] = {
    "prompt_completion": (("prompt", "completion"),),
    "messages": (("messages",),),
    "conversations": (("conversations",),),
    "text": (("text",),),
    "instruction": (("instruction", "output"), ("instruction", "instances")),
}
# Without content in these there is nothing to learn from the record.
_MUST_HAVE_CONTENT = {
    "prompt_completion": ("completion",),
    "text": ("text",),
    "instruction": ("instruction", "output"),
}
_BESIDE_TURNS = ("system", "tools", "functions")
_FIELDS: dict[RecordFormat, tuple[str, ...]] = {
    "prompt_completion": ("prompt", "completion", "tools"),
    "messages": ("messages", *_BESIDE_TURNS),
    "conversations": ("conversations", *_BESIDE_TURNS),
    "text": ("text",),
    "instruction": ("instruction", "input", "output", "instances", "system", "history"),
}
_MOST_UNUSED_COLUMNS = 50
# Columns of well-known data sets, and what to write for them.
_KNOWN_SETS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"instruction", "response", "context"}), "set data.columns={input: context, output: response}"),
    (frozenset({"instruction", "response"}), "set data.columns={output: response}"),
    (
        frozenset({"system_prompt", "question", "response"}),
        "write messages with system, user and assistant, or leave the system prompt out with "
        "data.columns={prompt: question, completion: response}",
    ),
    (frozenset({"prompt", "chosen"}), "to learn the chosen answer set data.columns={completion: chosen}"),
    (frozenset({"chosen", "rejected"}), "to learn the chosen conversation set data.columns={messages: chosen}"),
    (frozenset({"prompt", "response"}), "set data.columns={completion: response}"),
    (frozenset({"question", "answer"}), "set data.columns={prompt: question, completion: answer}"),
    (frozenset({"question", "response"}), "set data.columns={prompt: question, completion: response}"),
    (frozenset({"query", "response"}), "set data.columns={prompt: query, completion: response}"),
    (frozenset({"input", "output"}), "set data.columns={prompt: input, completion: output}"),
    (frozenset({"inputs", "targets"}), "set data.columns={prompt: inputs, completion: targets}"),
    (frozenset({"problem", "solution"}), "set data.columns={prompt: problem, completion: solution}"),
    (frozenset({"conversation"}), "where it holds turns set data.columns={conversations: conversation}"),
    (frozenset({"dialog"}), "where it holds turns with role and content set data.columns={messages: dialog}"),
    (frozenset({"dialogue"}), "where it holds turns with role and content set data.columns={messages: dialogue}"),
    (frozenset({"chat"}), "for turns set data.columns={messages: chat}, for running text data.columns={text: chat}"),
    (frozenset({"data"}), "where it holds turns in alternation rewrite them as messages (role, content)"),
    (frozenset({"content"}), "for running text set data.columns={text: content}"),
)


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
                    code="DATA_UNKNOWN_COLUMN_FIELD",
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
    fitting: list[RecordFormat] = [
        name for name, choices in REQUIRED_FIELDS.items() if any(set(fields) <= present for fields in choices)
    ]
    if columns:
        # A mapping says which format is meant, even where the file has further columns that would fit another.
        fitting = [name for name in fitting if set(columns) <= set(_FIELDS[name])]
    elif {"message_id", "parent_id"} <= present:
        raise ValueError(
            "the line is one message of a tree (message_id, parent_id), which is no record by itself; write each "
            'thread from its root to a leaf as {"messages": […]}, or set data.format=text to learn single messages'
        )
    if len(fitting) == 1:
        return fitting[0]
    keys = ", ".join(shown_name(key) for key in list(value)[:10]) or "no keys"
    if fitting:
        raise ValueError(f"the line fits more than one format ({', '.join(fitting)}); set data.format")
    hint = next((text for names, text in _KNOWN_SETS if names <= present), "")
    wanted = "; ".join("+".join(choices[0]) for choices in REQUIRED_FIELDS.values())
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
    ``completion = output``; an empty input leaves nothing behind. Prompt and completion that are lists of turns become
    a conversation of which the completion alone is learned. A key that the format does not use is reported to
    ``on_unused``.

    Raises
    ------
    ValueError
        As `RecordReader.read`.
    """
    columns = columns or {}
    mapped = {field: value[key] for field in _FIELDS[record_format] if (key := columns.get(field, field)) in value}
    choices = REQUIRED_FIELDS[record_format]
    if not any(set(fields) <= mapped.keys() for fields in choices):
        missing = next(field for field in choices[0] if field not in mapped)
        raise ValueError(f"key {shown_name(columns.get(missing, missing))} is missing (format {record_format})")
    used = {columns.get(field, field) for field in mapped}
    for key in value:
        if key not in used:
            on_unused(key)
    if record_format in {"messages", "conversations"}:
        return _conversation(mapped, record_format, columns, on_unused)
    if record_format == "prompt_completion" and isinstance(mapped["prompt"], list):
        return _conversational_pair(mapped, columns, on_unused)
    return _plain_record(mapped, record_format, columns, on_unused)


def map_strings(record: Record, change: Callable[[str, str], str]) -> Record:
    """Return the record with every string replaced by ``change(field, text)``; fields as ``messages[2].content``."""
    if isinstance(record, MessagesRecord):
        return map_conversation(record, change)
    if isinstance(record, TextRecord):
        return TextRecord(text=change("text", record.text))
    return PromptCompletionRecord(
        prompt=change("prompt", record.prompt), completion=change("completion", record.completion)
    )


def _plain_record(
    mapped: dict[str, Any], record_format: RecordFormat, columns: Mapping[str, str], on_unused: Callable[[str], None]
) -> PromptCompletionRecord | TextRecord:
    if mapped.pop("tools", None) is not None:
        on_unused(columns.get("tools", "tools"))
    if record_format == "instruction":
        mapped = _flat_instruction(mapped, columns)
    try:
        record = _MODELS[record_format].model_validate(mapped)
    except ValidationError as error:
        raise ValueError(_explain(error, columns)) from None
    for field in _MUST_HAVE_CONTENT[record_format]:
        if not getattr(record, field).strip():
            state = "holds nothing but white space" if getattr(record, field) else "is empty"
            raise ValueError(f"{_named(field, columns)} {state}")
    if isinstance(record, _InstructionRecord):
        prompt = record.instruction + (f"\n\n{record.input}" if record.input.strip() else "") + "\n\n"
        return PromptCompletionRecord(prompt=prompt, completion=record.output)
    assert isinstance(record, PromptCompletionRecord | TextRecord)
    return record


def _flat_instruction(mapped: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return instruction, input and output alone; an only instance is its own input and output.

    Raises
    ------
    ValueError
        If the line holds more than these: several instances, an earlier conversation, a system prompt.
    """
    for field in ("system", "history"):
        if mapped.pop(field, None) not in (None, "", []):
            raise ValueError(
                f"{_named(field, columns)} is not read in format instruction, and would be lost; write the line as "
                '{"messages": […]} with the turns in their order'
            )
    instances = mapped.pop("instances", None)
    if instances is not None and "output" not in mapped:
        where = _named("instances", columns)
        if not isinstance(instances, list) or not all(isinstance(instance, dict) for instance in instances):
            raise ValueError(f"{where} is not a list of objects")
        if len(instances) != 1:
            raise ValueError(
                f"{where} holds {len(instances)}, and a line is one record; write a line with instruction, input and "
                "output for each"
            )
        if "output" not in instances[0]:
            raise ValueError(f"{where}[0].output is missing")
        mapped |= {field: instances[0][field] for field in ("input", "output") if field in instances[0]}
    if mapped.get("input", "") is None:
        mapped["input"] = ""
    return mapped


def _conversation(
    mapped: Mapping[str, Any], field: str, columns: Mapping[str, str], on_unused: Callable[[str], None]
) -> MessagesRecord:
    messages = read_turns(mapped[field], _named(field, columns), on_unused)
    system = mapped.get("system")
    if system not in (None, ""):
        where = _named("system", columns)
        if not isinstance(system, str):
            raise ValueError(f"{where} is not a string")
        if messages[0].role == "system":
            raise ValueError(f"{where} and a system turn at the start are both set; keep one of the two")
        turn = {"role": "system", "content": system}
        messages = (*read_turns([turn], where, on_unused), *messages)
    if mapped.get("tools") and mapped.get("functions"):
        raise ValueError("the line has tools and functions; keep one of the two")
    named = "functions" if mapped.get("functions") else "tools"
    return MessagesRecord(messages=messages, tools=read_tools(mapped.get(named), _named(named, columns)))


def _conversational_pair(
    mapped: Mapping[str, Any], columns: Mapping[str, str], on_unused: Callable[[str], None]
) -> MessagesRecord:
    """Return prompt and completion that are both lists of turns as one conversation."""
    given = read_turns(mapped["prompt"], _named("prompt", columns), on_unused)
    answer = read_turns(mapped["completion"], _named("completion", columns), on_unused)
    if answer[-1].role != "assistant":
        raise ValueError(f"{_named('completion', columns)} does not end with a turn of the assistant")
    messages = tuple(
        message.model_copy(update={"supervised": False}) if message.role == "assistant" else message
        for message in given
    )
    tools = read_tools(mapped.get("tools"), _named("tools", columns))
    return MessagesRecord(messages=(*messages, *answer), tools=tools)


def _known_format(name: str) -> RecordFormat:
    for known in REQUIRED_FIELDS:
        if known == name:
            return known
    raise DataError(
        f"data.format: unknown format {name!r}",
        fix=f"use auto, {', '.join(REQUIRED_FIELDS)}",
        code="DATA_UNKNOWN_FORMAT",
    )


def _named(field: str, columns: Mapping[str, str]) -> str:
    return f"{field} (column {shown_name(columns[field])})" if field in columns else field


def _explain(error: ValidationError, columns: Mapping[str, str]) -> str:
    """Return the first fault of a validation, by key and type, without the value."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = _named(str(problem["loc"][0]), columns)
    return f"{path} is missing" if problem["type"] == "missing" else f"{path} is not a string"
