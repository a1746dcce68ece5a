"""Validates one configuration file by its path: a whole configuration, or the file of one group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.config.compose import Composed, compose
from codex_ml.config.describe import section_names, valid_keys
from codex_ml.config.files import read_yaml
from codex_ml.config.schema.base import Section
from codex_ml.config.validate import validate_section, validate_train
from codex_ml.errors import ConfigError, ConfigProblem

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
