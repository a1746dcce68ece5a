"""Messages of configuration problems: the key, the problem, and the closest valid names."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from codex_ml.config.schema.base import RelativePath, Section, join_key
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import ConfigProblem

_SHOWN_CHARACTERS = 60
_FORMS = {"integer": "a whole number", "number": "a number", "text": "a text", "path": "a path"}
_BOUNDS = {"ge": "{} or more", "gt": "a value above {}", "le": "{} or less", "lt": "a value below {}"}
_TRUTH_WORDS = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}


def field_problem(field: FieldDescription, value: Any, details: list[ErrorDetails]) -> ConfigProblem:
    """Return one problem for all errors of one field.

    Parameters
    ----------
    field : FieldDescription
        The field of the schema.
    value : Any
        What the configuration gives for it.
    details : list of ErrorDetails
        Pydantic's errors; several where the field may be of several types, or where several items of a list are wrong.
    """
    bounds = [detail for detail in details if not _is_type_error(detail)]
    if len(bounds) == 1 and bounds[0]["type"] != "literal_error":
        if bounds[0]["type"] == "string_pattern_mismatch":
            return ConfigProblem(
                field.key,
                f"cannot be {shown(value)}",
                f"choose another text. {field.description}",
                code="CONFIG_INVALID_VALUE",
            )
        said = re.sub(r"^(Input|String|Tuple|List) should", "must", bounds[0]["msg"]).replace(
            " after validation, not 0", ""
        )
        return ConfigProblem(
            field.key,
            f"{said}, got {shown(value)}",
            _way_out(field, bounds[0].get("ctx", {})),
            code="CONFIG_INVALID_VALUE",
        )
    return ConfigProblem(
        field.key,
        f"expected {field.type}, got {_kind(value)}{shown(value)}",
        _type_fix(field, value),
        code="CONFIG_WRONG_TYPE",
    )


def section_problem(key: str, value: Any, names: list[str]) -> ConfigProblem:
    """Return the problem of a section that is no mapping."""
    return ConfigProblem(
        key,
        f"expected a group of keys, got {_kind(value)}{shown(value)}",
        f"set {key}.KEY=VALUE; keys: {', '.join(names)}",
        code="CONFIG_WRONG_TYPE",
    )


def shown(value: Any) -> str:
    """Return a value as it is shown in a message, cut where it is long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _is_type_error(detail: ErrorDetails) -> bool:
    return detail["type"].endswith(("_type", "_parsing", "_from_float", "_error", "missing"))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "the text "
    if isinstance(value, Mapping):
        return "the mapping "
    return "the list " if isinstance(value, list) else ""


def _way_out(field: FieldDescription, limits: Mapping[str, Any]) -> str:
    """Return what a field may be set to, an example, and what it means; for a value that does not say what was meant.

    Parameters
    ----------
    field : FieldDescription
        The field.
    limits : mapping
        The bound that the value passed, as pydantic names it (``{"ge": 1}``); empty where its type was wrong.
    """
    bound = next((_BOUNDS[name].format(limit) for name, limit in limits.items() if name in _BOUNDS), None)
    expected = bound or " or ".join(_form(field, part) for part in field.type.split(" or "))
    given = field.default is not None and not isinstance(field.default, list | dict | bool)
    example = f", such as {field.default} (the default)" if given and str(field.default) not in expected else ""
    return f"set {field.key} to {expected}{example}. {field.description}"


def _form(field: FieldDescription, words: str) -> str:
    """Return one of the types of a field as something that can be written."""
    if words.startswith("list of"):
        item = words.rpartition("of ")[2]
        known = field.default if isinstance(field.default, list) else []
        items = known or ["NAME" if item in _FORMS else item]
        return f"a list: {field.key}=[{','.join(map(str, items))}]"
    if words.startswith("mapping of"):
        return f"a mapping: '{field.key}={{NAME: VALUE}}'"
    return f"one of {', '.join(words.split(' | '))}" if " | " in words else _FORMS.get(words, words)


def _type_fix(field: FieldDescription, value: Any) -> str:
    """Return what to write instead of a value of the wrong type."""
    if isinstance(value, str):
        number = _number(value)
        if number is not None and "number" in field.type:
            return f"write the number without quotes: {field.key}={number:g}"
        if number is not None and "integer" in field.type and number == int(number):
            return f"write the number without quotes: {field.key}={int(number)}"
        if "true or false" in field.type and value.lower() in _TRUTH_WORDS:
            return f"write {field.key}={_TRUTH_WORDS[value.lower()]}"
        near = difflib.get_close_matches(value, field.type.replace(" or ", " | ").split(" | "), n=1)
        if near:
            return f"did you mean {near[0]}?"
        if "list of" in field.type:
            return f"write a list: {field.key}=[{value}]"
    if isinstance(value, float) and "integer" in field.type and value == int(value):
        return f"write {field.key}={int(value)}"
    if isinstance(value, bool | int | float) and not {"text", "path"}.isdisjoint(field.type.split(" or ")):
        return f"""quote it to make it text: '{field.key}="{value}"'"""
    return _way_out(field, {})


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    # Neither "nan" nor "inf" is a number a configuration may hold.
    return number if abs(number) < float("inf") else None


# difflib finds nothing near one-letter keys such as `r`, and nothing that other tools merely call differently.
ALIASES: dict[str, str] = {
    "rank": "adapter.r",
    "lora_r": "adapter.r",
    "lora_rank": "adapter.r",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_target_modules": "adapter.target_modules",
    "targets": "adapter.target_modules",
    "peft": "adapter",
    "lora": "adapter",
    "lr": "training.learning_rate",
    "peak_lr": "training.learning_rate",
    "batch_size": "training.micro_batch_size",
    "micro_batch": "training.micro_batch_size",
    "per_device_train_batch_size": "training.micro_batch_size",
    "train_batch_size": "training.micro_batch_size",
    "per_device_eval_batch_size": "eval.batch_size",
    "eval_batch_size": "eval.batch_size",
    "grad_accum": "training.gradient_accumulation_steps",
    "grad_accum_steps": "training.gradient_accumulation_steps",
    "gradient_accumulation": "training.gradient_accumulation_steps",
    "accumulation_steps": "training.gradient_accumulation_steps",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "epoch": "training.epochs",
    "steps": "training.max_steps",
    "num_steps": "training.max_steps",
    "max_iters": "training.max_steps",
    "warmup": "training.warmup_steps",
    "num_warmup_steps": "training.warmup_steps",
    "scheduler": "training.schedule",
    "lr_scheduler": "training.schedule",
    "lr_scheduler_type": "training.schedule",
    "decay": "training.weight_decay",
    "beta1": "training.adam_beta1",
    "beta2": "training.adam_beta2",
    "epsilon": "training.adam_epsilon",
    "clip": "training.max_grad_norm",
    "grad_clip": "training.max_grad_norm",
    "gradient_clipping": "training.max_grad_norm",
    "log_every": "training.logging_steps",
    "eval_every": "training.eval_steps",
    "save_every": "training.save_steps",
    "save_total_limit": "training.keep_last",
    "patience": "training.early_stopping_patience",
    "seq_len": "data.max_length_tokens",
    "sequence_length": "data.max_length_tokens",
    "max_length": "data.max_length_tokens",
    "max_seq_len": "data.max_length_tokens",
    "max_seq_length": "data.max_length_tokens",
    "block_size": "data.max_length_tokens",
    "model_name_or_path": "model.path",
    "base_model": "model.path",
    "model_path": "model.path",
    "model_name": "model.name",
    "model_id": "model.name",
    "repo_id": "model.name",
    "hub_model_id": "model.name",
    "commit": "model.revision",
    "precision": "model.dtype",
    "torch_dtype": "model.dtype",
    "train_file": "data.train",
    "validation_file": "data.valid",
    "validation": "data.valid",
    "val": "data.valid",
    "test_file": "data.test",
    "dataset": "data.path",
    "data_path": "data.path",
    "file": "data.path",
    "ratios": "data.split.ratios",
    "output": "run.output_dir",
    "output_directory": "run.output_dir",
    "out_dir": "run.output_dir",
    "experiment_name": "tracking.experiment",
    "trackers": "tracking.sinks",
    "report_to": "tracking.sinks",
    "max_tokens": "eval.max_new_tokens",
    "no_network": "offline",
    "evaluation": "eval",
    "train": "training",
    "trainer": "training",
    "dataset_config": "data",
}
_CUTOFF = 0.7


def suggest(key: str, root: type[Section]) -> str | None:
    """Return the dotted key that an unknown dotted key probably meant, or ``None``.

    Parameters
    ----------
    key : str
        The unknown key, such as ``training.lr``.
    root : type
        The configuration in which it was looked up.
    """
    section, _, name = key.rpartition(".")
    name = name.lower()
    known = [field.key for field in describe_schema(root)] + section_names(root)
    if key in known:
        # It was written with its dots as one name: the key is right, the nesting is not.
        return key
    siblings = valid_keys(section, root)
    # A near spelling in the same section is likelier than a word of another tool, as in data.trainn.
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=0.8):
        return f"{section}.{near[0]}" if section else near[0]
    if (target := ALIASES.get(name)) in known:
        return target
    namesakes = [candidate for candidate in known if candidate.rpartition(".")[2] == name]
    if len(namesakes) == 1:
        return namesakes[0]
    if near := difflib.get_close_matches(name, siblings, n=1, cutoff=_CUTOFF):
        return f"{section}.{near[0]}" if section else near[0]
    leaf_names = {candidate.rpartition(".")[2]: candidate for candidate in known}
    if near := difflib.get_close_matches(name, leaf_names, n=1, cutoff=_CUTOFF):
        return leaf_names[near[0]]
    return None


def unknown_key_fix(key: str, root: type[Section]) -> str:
    """Return the advice for an unknown key: the likely meaning, and every valid key beside it."""
    section = key.rpartition(".")[0]
    names = valid_keys(section, root)
    while not names and section:
        section = section.rpartition(".")[0]
        names = valid_keys(section, root)
    place = f"valid keys of {section}" if section else "valid keys at the top"
    listing = f"{place}: {', '.join(names)}"
    meant = suggest(key, root)
    if meant is None:
        return listing
    if meant == key:
        return f"nest it: write {key.replace('.', ': {')}: …{'}' * key.count('.')} in a file; {listing}"
    return f"did you mean {meant}? {listing}"


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
