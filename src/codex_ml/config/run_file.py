"""Writes the configuration of a run into its directory, and composes it again from there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.config.compose import Command, Composed, compose
from codex_ml.config.paths import PATH_FIELDS
from codex_ml.config.schema.root import RunConfig
from codex_ml.config.value_tree import as_text
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.atomic import Storage

_HEADER = """\
# @package _global_
# The resolved configuration of this run; paths are relative to this file.
# Use it again: codex-ml train --config-dir THIS_DIRECTORY --config-name {stem}
"""


def write_run_config(config: RunConfig, path: Path, storage: Storage | None = None) -> None:
    """Write a validated configuration as YAML, with paths relative to the file's directory.

    Parameters
    ----------
    config : RunConfig
        What the run uses.
    path : Path
        The file, such as ``config.yaml`` in the run's directory.
    storage : Storage, optional
        Writes the file atomically.
    """
    from omegaconf import OmegaConf

    # What this run went on from is no setting of it: the file describes the run, and used again it starts another.
    config = config.model_copy(update={"run": config.run.model_copy(update={"resume_from": None})})
    values = _without_references(run_config_values(config, path.parent))
    text = _HEADER.format(stem=path.stem) + OmegaConf.to_yaml(OmegaConf.create(values))
    (storage or Storage()).write_atomic(path, text.encode("utf-8"))


def run_config_values(config: RunConfig, directory: Path) -> dict[str, Any]:
    """Return a configuration as plain JSON data, with paths relative to a directory."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for key, mark in PATH_FIELDS.items():
        *sections, name = key.split(".")
        parent = values
        for section in sections:
            parent = parent[section]
        value = parent[name]
        if isinstance(value, dict):
            parent[name] = {key: os.path.relpath(path, directory.absolute()) for key, path in value.items()}
        elif value is not None and mark.is_path(value):
            parent[name] = os.path.relpath(value, directory.absolute())
    return values


def _without_references(value: Any) -> Any:
    """Return values in which no text is a reference: a file name or a reason may hold ``${`` and means just that."""
    if isinstance(value, dict):
        return {key: _without_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_references(item) for item in value]
    return as_text(value) if isinstance(value, str) else value


def compose_from_run_file(
    command: Command,
    path: Path,
    overrides: Sequence[str] = (),
    working_directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    extra_values: Mapping[str, object] | None = None,
) -> Composed:
    """Compose the configuration that a run wrote, with overrides over it.

    Parameters
    ----------
    command : str
        ``"train"``, ``"evaluate"``, ``"generate"`` or ``"serve"``.
    path : Path
        The run's ``config.yaml``.
    overrides, working_directory, environment, extra_values
        As for `compose`.

    Raises
    ------
    ConfigError
        If the file is absent or cannot be read.
    """
    file = (working_directory or Path.cwd()) / path
    if not file.is_file():
        raise ConfigError(
            [
                ConfigProblem(
                    str(file), "there is no such configuration file", "name another run", code="CONFIG_NOT_FOUND"
                )
            ]
        )
    return compose(
        command,
        config_name=file.stem,
        config_dir=file.parent,
        overrides=overrides,
        working_directory=working_directory,
        environment=environment,
        extra_values=extra_values,
    )
