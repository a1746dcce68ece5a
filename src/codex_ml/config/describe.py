"""Lists the keys of the configuration with their types, defaults and descriptions, for help texts and messages."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from codex_ml.config.schema.base import RelativePath, Section, join_key
from codex_ml.config.schema.root import TrainConfig

_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", type(None): "null"}


@dataclass(frozen=True)
class FieldDescription:
    """One key: dotted name, type in words, default as plain data, what it does, and its path mark if any."""

    key: str
    type: str
    default: Any
    description: str
    path: RelativePath | None


def describe_schema(root: type[Section] = TrainConfig) -> list[FieldDescription]:
    """Return every key of a configuration, section by section, in the order of the schema."""
    return list(_describe("", root))


def valid_keys(section: str, root: type[Section] = TrainConfig) -> list[str]:
    """Return the names directly under a section; ``""`` is the root; an unknown section has none."""
    model = root
    for part in section.split(".") if section else []:
        child = subsection(model.model_fields[part]) if part in model.model_fields else None
        if child is None:
            return []
        model = child
    return list(model.model_fields)


def section_names(root: type[Section] = TrainConfig) -> list[str]:
    """Return the names of the sections at the root."""
    return [name for name, field in root.model_fields.items() if subsection(field) is not None]


def subsection(field: FieldInfo) -> type[Section] | None:
    """Return the section class of a field that is itself a section."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _describe(prefix: str, section: type[Section]) -> Iterator[FieldDescription]:
    for name, field in section.model_fields.items():
        key = join_key(prefix, name)
        child = subsection(field)
        if child is not None:
            yield from _describe(key, child)
            continue
        default = field.get_default(call_default_factory=True)
        yield FieldDescription(
            key=key,
            type=type_words(field.annotation),
            default=list(default) if isinstance(default, tuple) else default,
            description=field.description or "",
            path=next((mark for mark in field.metadata if isinstance(mark, RelativePath)), None),
        )


def type_words(annotation: Any) -> str:
    """Return a type annotation in words a user reads, such as ``"integer or null"``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(argument) for argument in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {type_words(arguments[0])}"
        return f"list of {len(arguments)} of {type_words(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_words(arguments[0])} to {type_words(arguments[1])}"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
