"""Validation of a composed configuration or of a file: every problem is reported at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from codex_ml.config.compose import SCHEMA_DEFAULT, WORKING_DIRECTORY, Composed, compose
from codex_ml.config.files import read_yaml
from codex_ml.config.messages import (
    describe_schema,
    field_problem,
    section_names,
    section_problem,
    subsection,
    unknown_key_fix,
    valid_keys,
)
from codex_ml.config.migrations import Migrations, renamed_hint
from codex_ml.config.overrides import COMMAND_LINE
from codex_ml.config.schema.base import RuleError, Section, join_key
from codex_ml.config.schema.data import DataSection
from codex_ml.config.schema.root import EvaluateConfig, GenerateConfig, RunConfig, ServeConfig, TrainConfig
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.registry import NAMED_COMPONENTS

SectionT = TypeVar("SectionT", bound=Section)
ConfigT = TypeVar("ConfigT", bound=RunConfig)
_READ_OF_DATA = ("format", "columns", "max_line_bytes")
_NOT_READ_TO_GENERATE = (
    "eval",
    "tracking",
    *(f"data.{name}" for name in DataSection.model_fields if name not in _READ_OF_DATA),
)
_FIELDS = {field.key: field for field in describe_schema(TrainConfig)}
_NOT_READ_TO_SERVE = ("data", "generation.batch_size")


def validate_train(composed: Composed) -> TrainConfig:
    """Return the validated configuration of a training run.

    Raises
    ------
    ConfigError
        With every problem found, in composing and in validating.
    """
    config, problems = _check(TrainConfig, composed.values, "", composed)
    return _accepted(config, composed, problems + _unknown_names(composed))


def validate_evaluate(composed: Composed) -> EvaluateConfig:
    """Return the validated configuration of an evaluation.

    One file serves all commands, so the sections that this one does not read are validated and left out;
    setting one of their keys on the command line is an error, because it would do nothing. ``CODEX_ML_OVERRIDES`` is no
    such word for one command: like a file, it serves both.

    Raises
    ------
    ConfigError
        With every problem found, in composing and in validating.
    """
    return _validate_shared(EvaluateConfig, composed, _not_in(EvaluateConfig))


def validate_generate(composed: Composed) -> GenerateConfig:
    """Return the validated configuration of a generation; as `validate_evaluate`.

    Raises
    ------
    ConfigError
        With every problem found, in composing and in validating.
    """
    return _validate_shared(GenerateConfig, composed, (*_not_in(GenerateConfig), *_NOT_READ_TO_GENERATE))


def validate_serve(composed: Composed) -> ServeConfig:
    """Return the validated configuration of the service; as `validate_evaluate`.

    Raises
    ------
    ConfigError
        With every problem found, in composing and in validating.
    """
    idle = (*_not_in(ServeConfig), *_NOT_READ_TO_GENERATE, *_NOT_READ_TO_SERVE)
    return _validate_shared(ServeConfig, composed, idle)


def _validate_shared(model: type[ConfigT], composed: Composed, idle: Sequence[str]) -> ConfigT:
    """Validate a configuration that is made for training too, and refuse values for this command that it never reads.

    Parameters
    ----------
    idle : sequence of str
        Sections and keys without effect on the command.
    """
    values, problems = dict(composed.values), _idle_overrides(composed, idle)
    for name in _not_in(model):
        if name in values:
            section = subsection(TrainConfig.model_fields[name])
            assert section is not None
            problems += _check(section, values.pop(name), name, composed)[1]
    config, further = _check(model, values, "", composed)
    return _accepted(config, composed, problems + further + _unknown_names(composed))


def validate_section(name: str, composed: Composed) -> Section:
    """Return one validated section of a composed file of one group; the rest is that of the defaults.

    Raises
    ------
    ConfigError
        With every problem of the section, and one for every key outside it.
    """
    section = subsection(TrainConfig.model_fields[name])
    assert section is not None
    # Composing fills in the place of runs, which is no key of the file.
    given = {key for key, origin in composed.origins.items() if origin not in (SCHEMA_DEFAULT, WORKING_DIRECTORY)}
    dependencies = sorted({key.partition(".")[0] for key in given} - {name})
    problems = [
        ConfigProblem(
            key, f"stands outside the section of this file, {name}", f"move it to a file of its own group, or to {name}"
        )
        for key in dependencies
    ]
    config, further = _check(section, composed.values.get(name, {}), name, composed)
    return _accepted(config, composed, problems + further + _unknown_names(composed))


def _accepted(config: SectionT | None, composed: Composed, problems: Iterable[ConfigProblem]) -> SectionT:
    found = list(dict.fromkeys([*composed.problems, *problems]))
    if found or config is None:
        raise ConfigError(found)
    return config


def _unknown_names(composed: Composed) -> list[ConfigProblem]:
    """Return a problem for each name of a component that neither the toolkit nor an installed plugin has."""
    problems = []
    for key, registry in NAMED_COMPONENTS.items():
        value = _at(composed.values, tuple(key.split(".")))
        for name in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []:
            if isinstance(name, str) and name and (unknown := registry.unknown(name)) is not None:
                problems.append(ConfigProblem(key, *unknown))
    return problems


def _not_in(model: type[RunConfig]) -> list[str]:
    return [name for name in TrainConfig.model_fields if name not in model.model_fields]


def _idle_overrides(composed: Composed, idle: Sequence[str]) -> list[ConfigProblem]:
    return [
        ConfigProblem(
            key, f"has no effect on {composed.command} (set by {origin})", "leave it out; another command reads it"
        )
        for key, origin in composed.origins.items()
        if origin == COMMAND_LINE and any(f"{key}.".startswith(f"{name}.") for name in idle)
    ]


def _check(
    model: type[SectionT], values: Any, prefix: str, composed: Composed
) -> tuple[SectionT | None, list[ConfigProblem]]:
    """Validate until nothing new is found.

    Pydantic checks no rule across fields while a field is wrong. So what was reported is taken out and the rest is
    looked at again, with the rules skipped that read what is wrong.
    """
    problems: list[ConfigProblem] = []
    skip = {problem.key for problem in composed.problems}
    remaining = copy.deepcopy(values)
    while True:
        try:
            return model.model_validate(remaining, context={"skip": frozenset(skip)}), problems
        except ValidationError as error:
            by_field: dict[tuple[str, ...], list[ErrorDetails]] = {}
            for detail in error.errors(include_url=False):
                cause = detail.get("ctx", {}).get("error")
                if isinstance(cause, RuleError):
                    place = join_key(prefix, ".".join(str(part) for part in detail["loc"])) if detail["loc"] else prefix
                    for rule, violation in cause.broken:
                        skip.add(rule.name)
                        problems.append(ConfigProblem(join_key(place, violation.key), violation.what, violation.fix))
                else:
                    by_field.setdefault(_field_location(model, detail), []).append(detail)
            for location, details in by_field.items():
                key = join_key(prefix, ".".join(location))
                skip.add(key)
                problems.append(_problem(key, _at(remaining, location), details, composed.migrations))
                remaining = _without(remaining, location)


def _problem(key: str, value: Any, details: list[ErrorDetails], migrations: Migrations) -> ConfigProblem:
    if key in _FIELDS:
        return field_problem(_FIELDS[key], value, details)
    if details[0]["type"] != "extra_forbidden":
        return section_problem(key, value, valid_keys(key))
    if (renamed := renamed_hint(key, migrations)) is not None:
        return ConfigProblem(key, "unknown key", renamed)
    if "." not in key and isinstance(value, Mapping) and any(name in valid_keys("") for name in value):
        return ConfigProblem(
            key,
            "unknown key, which holds a whole configuration",
            f"begin the file below {key}/ with the line '# @package _global_'",
        )
    return ConfigProblem(key, "unknown key", unknown_key_fix(key, TrainConfig))


def _field_location(model: type[Section], detail: ErrorDetails) -> tuple[str, ...]:
    """Return where a field stands, without pydantic's branches of a union and positions in a list."""
    location: list[str] = []
    section: type[Section] | None = model
    for part in detail["loc"]:
        if section is None:
            break
        location.append(str(part))
        field = section.model_fields.get(str(part))
        section = subsection(field) if field is not None else None
    return tuple(location)


def _at(values: Any, location: tuple[str, ...]) -> Any:
    for part in location:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _without(values: Any, location: tuple[str, ...]) -> Any:
    """Return the values without what stands at a location; a section that is no mapping becomes an empty one."""
    if not location:
        return {}
    parent = _at(values, location[:-1])
    if isinstance(parent, dict):
        parent.pop(location[-1], None)
    return values


_HEADER = "# @package "
_GLOBAL = "_global_"


@dataclass(frozen=True)
class ValidFile:
    """A file that is valid: what it was taken for, and what it says.

    Attributes
    ----------
    section : str or None
        The section whose file it is; ``None`` for a whole configuration.
    config : Section
        The validated section or configuration.
    composed : Composed
        What was validated, with the origin of every value.
    """

    section: str | None
    config: Section
    composed: Composed

    @property
    def value_count(self) -> int:
        """Return how many values were validated, the defaults among them."""
        return _count(self.config.model_dump())


def validate_file(path: Path, working_directory: Path | None = None, packaged: Path | None = None) -> ValidFile:
    """Validate a file for what it is; the environment plays no part.

    A whole configuration is composed with its defaults list and validated as ``train`` would. The file of one group is
    validated as that section, all other keys of the section having their defaults; rules across sections cannot be
    judged from one of them. It is the file of a group if, in this order,

    1. its first lines hold ``# @package SECTION`` (``# @package _global_`` makes it a whole configuration);
    2. it stands in a directory with the name of a section, and its keys are not those of the root;
    3. its keys all belong to one section and to no other.

    A file that begins with ``# @package _global_``, or stands in the directory of its group, is one level down in a
    configuration tree: it is composed with the directory above as ``--config-dir``.

    Parameters
    ----------
    path : Path
        The file, ending in ``.yaml``.
    working_directory, packaged : Path, optional
        As for `compose`.

    Raises
    ------
    ConfigError
        With every problem.
    """
    file = ((working_directory or Path.cwd()) / path).absolute()
    if not file.is_file():
        raise ConfigError([ConfigProblem("--config", f"there is no file {file}", "name a YAML file")])
    if file.suffix != ".yaml":
        raise ConfigError([ConfigProblem("--config", f"{file} does not end in .yaml, which Hydra reads", "rename it")])
    values = read_yaml(file)
    header = _package_header(file)
    section = _section_of(file, header, values)
    tree = file.parent.parent if header == _GLOBAL or file.parent.name == section else file.parent
    composed = compose(
        "train",
        config_name=file.relative_to(tree).with_suffix("").as_posix(),
        config_dir=tree,
        working_directory=working_directory,
        environment={},
        packaged=packaged,
        wrap_in=section if header is None and file.parent.name != section else None,
    )
    config: Section = validate_train(composed) if section is None else validate_section(section, composed)
    return ValidFile(section, config, composed)


def _package_header(file: Path) -> str | None:
    """Return the package that the comments at the head of a file name, as Hydra reads it."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(_HEADER):
            return line.removeprefix(_HEADER).strip()
        if line.strip() and not line.startswith("#"):
            return None
    return None


def _section_of(file: Path, header: str | None, values: Mapping[Any, Any]) -> str | None:
    if header is not None:
        return header if header in section_names() else None
    keys = {str(key) for key in values} - {"defaults"}
    roots = set(valid_keys(""))
    if file.parent.name in section_names():
        own = set(valid_keys(file.parent.name))
        whole = keys & roots and not keys & own
        return None if whole or _names_the_root(values.get("defaults")) else file.parent.name
    fitting = [name for name in section_names() if keys and keys <= set(valid_keys(name)) and not keys & roots]
    return fitting[0] if len(fitting) == 1 else None


def _names_the_root(defaults: Any) -> bool:
    """Tell whether a defaults list begins at the root of a tree, as only that of a whole configuration does."""
    return isinstance(defaults, list) and any(isinstance(entry, str) and entry.startswith("/") for entry in defaults)


def _count(values: Mapping[str, Any]) -> int:
    return sum(_count(value) if isinstance(value, Mapping) and value else 1 for value in values.values())
