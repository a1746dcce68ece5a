"""Settings of `data prepare`, and the mapping of columns to fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from codex_ml.config.schema.base import Rule, Section, Violation
from codex_ml.config.schema.data import SplitSection
from codex_ml.data.problems import LineFault, shown_name
from codex_ml.data.records.formats import RecordFormat


def _digest_for_url(config: PreparerConfig) -> Violation | None:
    if config.url is None or config.sha256 is not None:
        return None
    return Violation("sha256", "a file that is fetched is named with its digest", "write sha256: HEX beside url")


def _text_options(config: PreparerConfig) -> Violation | None:
    if config.kind != "text" or not (config.columns or config.records_at):
        return None
    key = "columns" if config.columns else "records_at"
    return Violation(key, "running text has no fields, so it would do nothing", "leave it out, or set kind: records")


def _unit_of_records(config: PreparerConfig) -> Violation | None:
    if config.kind == "text" or config.unit == "paragraph":
        return None
    return Violation("unit", "only running text is cut into units, so it would do nothing", "leave it out")


class PreparerConfig(Section):
    """How raw files become records, splits and perhaps a tokenizer; the content of a ``preparer.yaml``."""

    section_key = ""
    rules = (
        Rule("preparer-digest", ("url", "sha256"), _digest_for_url),
        Rule("preparer-text", ("kind", "columns", "records_at"), _text_options),
        Rule("preparer-unit", ("kind", "unit"), _unit_of_records),
    )

    description: str = Field(default="", description="One sentence for the list of preparers.")
    kind: Literal["records", "text"] = Field(
        default="records",
        description="records: JSONL, JSON, CSV, TSV, Parquet or Arrow, a record a row; text: running text in UTF-8.",
    )
    unit: Literal["paragraph", "line", "file"] = Field(
        default="paragraph",
        description="What of running text becomes one record; paragraphs end at blank lines. Each is unchanged.",
    )
    records_at: str | None = Field(
        default=None, min_length=1, description="Path to the list of records inside a .json file, such as data.items."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Field of the written record -> its path in the raw one, such as completion: answer.text; "
        "nothing: records are taken as they are.",
    )
    format: RecordFormat | Literal["auto"] = Field(
        default="auto", description="Format that every written record must have."
    )
    url: str | None = Field(
        default=None, pattern=r"^https?://", description="Where the raw file is fetched from with --online."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Digest of the raw file; another file is refused."
    )
    split: SplitSection = Field(default_factory=SplitSection, description="How the records are divided.")
    vocabulary_size: int | None = Field(
        default=None, ge=300, le=1 << 20, description="Size of the tokenizer trained on the train split; null: none."
    )
    on_bad_record: Literal["error", "drop"] = Field(
        default="error", description="How to handle an invalid row; dropped rows are listed in rejects.ndjson."
    )
    max_bad_share: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Largest share of rows that may be dropped before it is an error."
    )


def map_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """Return the record that some columns make of a row, and how many of its values were numbers made into text.

    Text is taken as it is, and so are lists and objects (the turns of a conversation). A number or truth value, as
    tables hold them, becomes the text that JSON has for it.

    Parameters
    ----------
    row : mapping
        The raw row.
    columns : mapping
        Field of the record -> name in the row, or a path with points such as ``answer.text``; a name that holds points
        itself is found first.

    Raises
    ------
    LineFault
        If a column is absent or null; the message holds no value.
    """
    record: dict[str, Any] = {}
    converted = 0
    for field, path in columns.items():
        value = value_at(row, path)
        if value is None:
            state = "null" if _is_there(row, path) else "absent"
            raise LineFault("bad_shape", f"the column {shown_name(path)} for {field} is {state}")
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
            converted += 1
        record[field] = value
    return record, converted


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path; None if there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _is_there(row: Mapping[str, Any], path: str) -> bool:
    if path in row:
        return True
    above, _, name = path.rpartition(".")
    parent = value_at(row, above) if above else None
    return isinstance(parent, Mapping) and name in parent
