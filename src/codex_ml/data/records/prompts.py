"""The prompts of a file that is to be answered: rows as in training, with or without the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codex_ml.data.problems import Problems, shown_name
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, FaultyLine, parsed_lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.chat import MessagesRecord
from codex_ml.data.records.formats import PromptCompletionRecord, RecordFormat, to_record

# Answer of a row without one, so that it is checked like the others.
_NO_ANSWER = "-"
_ANSWER_OF: Mapping[RecordFormat, str] = {"prompt_completion": "completion", "instruction": "output"}
_PROMPT_OF: Mapping[str, RecordFormat] = {
    "prompt": "prompt_completion",
    "messages": "messages",
    "conversations": "conversations",
    "instruction": "instruction",
}


@dataclass(frozen=True)
class PromptRow:
    """One row: its location, its id, and the prompt to answer."""

    record_id: str
    identifier: str | int | None
    prompt: str | MessagesRecord


class PromptFile:
    """Reads the prompts of one file; all rows have one shape.

    Parameters
    ----------
    path : Path
        JSON Lines, packed or not, or a table.
    record_format : str
        A format of records, or ``"auto"``: the first row decides.
    columns : mapping
        Field of the format -> key in the file.
    max_line_bytes : int
        Longest line that is read.

    After an iteration `digest` and `byte_count` are those of the file.
    """

    def __init__(
        self,
        path: Path,
        record_format: RecordFormat | Literal["auto"] = "auto",
        columns: Mapping[str, str] | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self.path, self.digest, self.byte_count = path, "", 0
        self._format: RecordFormat | None = None if record_format == "auto" else record_format
        self._columns, self._max_line_bytes = dict(columns or {}), max_line_bytes

    def read(self, problems: Problems) -> Iterator[PromptRow]:
        """Yield the rows that can be read; what is wrong with the others is noted as ``file:line``.

        Raises
        ------
        DataError
            If the file itself cannot be read.
        """
        lines = open_records(self.path, self._max_line_bytes)
        for line in parsed_lines(lines):
            where = f"{self.path.name}:{line.line_number}"
            if isinstance(line, FaultyLine):
                problems.add(where, line.fault.at(line.offset))
                continue
            try:
                prompt = self._prompt(line.value)
            except ValueError as error:
                problems.add(where, str(error))
                continue
            given = line.value.get("id")
            # True is an int to Python, and no name of a row.
            is_name = isinstance(given, str | int) and not isinstance(given, bool)
            yield PromptRow(where, given if is_name else None, prompt)
        self.digest, self.byte_count = lines.digest, lines.byte_count

    def _prompt(self, value: Mapping[str, Any]) -> str | MessagesRecord:
        if self._format is None:
            self._format = self._detected(value)
        record = to_record(self._with_answer(value, self._format), self._format, self._columns)
        if isinstance(record, MessagesRecord):
            return record
        if isinstance(record, PromptCompletionRecord):
            return record.prompt
        raise ValueError("the row is running text, which asks for no answer; call it prompt (data.columns)")

    def _detected(self, value: Mapping[str, Any]) -> RecordFormat:
        found: list[RecordFormat] = [
            name for field, name in _PROMPT_OF.items() if self._columns.get(field, field) in value
        ]
        if len(found) == 1:
            return found[0]
        keys = ", ".join(shown_name(key) for key in list(value)[:10]) or "no keys"
        if found:
            raise ValueError(f"the row fits more than one format ({', '.join(found)}); set data.format")
        raise ValueError(
            f"the row has {keys}, and none of {', '.join(_PROMPT_OF)}; map the name with data.columns={{prompt: KEY}}"
        )

    def _with_answer(self, value: Mapping[str, Any], record_format: RecordFormat) -> dict[str, Any]:
        """Return a row with something where its answer may be missing; no answer of a row is ever used."""
        field = _ANSWER_OF.get(record_format)
        if field is None:
            return dict(value)
        key = self._columns.get(field, field)
        if record_format == "instruction":
            return {**{name: item for name, item in value.items() if name != "instances"}, key: _NO_ANSWER}
        is_conversation = isinstance(value.get(self._columns.get("prompt", "prompt")), list)
        answer = [{"role": "assistant", "content": _NO_ANSWER}] if is_conversation else _NO_ANSWER
        return {**value, key: answer}
