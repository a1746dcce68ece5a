"""Paths in a configuration, and the directories that are packaged with the toolkit."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from codex_ml.config.messages import describe_schema
from codex_ml.config.schema.base import RelativePath, join_key
from codex_ml.config.schema.root import RunConfig
from codex_ml.config.value_tree import Leaf, ValueTree, as_text
from codex_ml.errors import ConfigError, ConfigProblem, UserError
from codex_ml.io.untrusted import kind_of

PATH_FIELDS: dict[str, RelativePath] = {field.key: field.path for field in describe_schema() if field.path is not None}
DEFAULT_RUNS_DIRECTORY = "runs"
# Below run.output_dir: records that a caller of the Python API passed in memory; the files exist during a call only.
MEMORY_DIRECTORY = ".memory-records"
_SHOWN_NEIGHBOURS = 8


def option_name(key: str) -> str:
    """Return what the command-line option for a key is called: ``--data-path``; ``--resume-from`` for a key of run.

    A file among several is given as ``--data-file NAME=PATH``.
    """
    if key.startswith("data.files."):
        return f"--data-file {key.removeprefix('data.files.')}="
    return "--" + key.removeprefix("run.").replace(".", "-").replace("_", "-")


def absolute_paths(tree: ValueTree, environment: Mapping[str, str], *, resolved: bool) -> None:
    """Make every path in the tree absolute, in place: against its file, or the working directory for other sources.

    A value that begins with a reference (``${…}``) is left for a second call after the references are resolved. Until
    they are, what is put before a path is written so that it comes through that unharmed.
    """
    written = str if resolved else as_text
    for key, mark in _paths_in(tree):
        leaf = tree.find(key)
        if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str | Path):
            continue
        text = str(leaf.value)
        if not text or (text.startswith("${") and not resolved) or not mark.is_path(text):
            continue
        if text == "~" or text.startswith("~/"):
            text = written(environment.get("HOME", "~")) + text[1:]
        directory = Path(written(str(leaf.source.directory)))
        tree.graft(key, replace(leaf, value=os.path.normpath(directory / text)))


def _paths_in(tree: ValueTree) -> Iterator[tuple[str, RelativePath]]:
    """Yield the key of every path; a mapping of names to paths, such as data.files, has one for each name."""
    for key, mark in PATH_FIELDS.items():
        node = tree.find(key)
        if isinstance(node, dict):
            yield from ((join_key(key, name), mark) for name in node)
        else:
            yield key, mark


def check_paths(config: RunConfig, *, with_data: bool = True) -> None:
    """Check that everything the configuration names on disk is there, before anything expensive is loaded.

    Parameters
    ----------
    config : RunConfig
        Validated.
    with_data : bool
        Whether the data are read.

    Raises
    ------
    ConfigError
        With one problem for every missing path: what was looked for, where, and what is there instead.
    """
    problems = [
        problem
        for problem in (
            _missing("run.resume_from", config.run.resume_from, "checkpoint or run directory", directory=True),
            _missing("model.path", config.model.path, "model directory", directory=True),
            _missing("model.tokenizer", config.model.tokenizer, "tokenizer directory", directory=True),
            *(_missing(key, path, "data file", directory=False) for key, path in _data_files(config) if with_data),
            _missing("safety.policy", _policy_file(config), "policy file", directory=False),
            _not_a_directory("run.output_dir", config.run.output_dir),
        )
        if problem is not None
    ]
    if problems:
        raise ConfigError(problems)


def is_memory_file(path: Path) -> bool:
    """Tell whether a data file of a config held records that were passed in memory."""
    return path.parent.name == MEMORY_DIRECTORY


def _data_files(config: RunConfig) -> list[tuple[str, Path | None]]:
    data = config.data
    named = [("path", data.path), ("train", data.train), ("valid", data.valid), ("test", data.test)]
    files = [(f"files.{name}", path) for name, path in data.files.items()]
    return [(f"data.{name}", path) for name, path in [*named, *files]]


def _policy_file(config: RunConfig) -> Path | None:
    policy = config.safety.policy
    return Path(policy) if PATH_FIELDS["safety.policy"].is_path(policy) else None


def _missing(key: str, path: Path | str | None, kind: str, *, directory: bool) -> ConfigProblem | None:
    if path is None or isinstance(path, str):
        return None
    if path.is_dir() if directory else path.is_file():
        return None
    if path.exists():
        # A pipe or a device is neither; reading it may wait for ever, or never end.
        found = kind_of(path.stat().st_mode) or "a file"
        return ConfigProblem(
            key, f"{path} is {found}, and a {kind} is needed", f"set {key}=PATH", code="FILE_WRONG_KIND"
        )
    if is_memory_file(path):
        return ConfigProblem(
            key,
            "the records were passed in memory and are not on disk",
            f"pass them again, or set {key}=FILE to a file that holds them",
            code="DATA_NOT_ON_DISK",
        )
    return ConfigProblem(key, f"there is no {kind} {path}", _what_is_there(key, path), code="FILE_NOT_FOUND")


def _what_is_there(key: str, path: Path) -> str:
    """Return advice that names the nearest directory above a missing path and what it holds."""
    above = next((parent for parent in path.parents if parent.is_dir()), None)
    if above is None or not os.access(above, os.R_OK | os.X_OK):
        return f"set {key} to a path that exists"
    wanted = path.relative_to(above).parts[0]
    names = sorted(entry.name for entry in above.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {above / near[0]}? " if near else ""
    listing = ", ".join(names[:_SHOWN_NEIGHBOURS]) + (" …" if len(names) > _SHOWN_NEIGHBOURS else "")
    other = ", or model.name=ORGANISATION/MODEL for one in the Hugging Face cache" if key == "model.path" else ""
    return f"{hint}{above} holds: {listing or 'nothing'}; set {key} to a path that exists{other}"


def _not_a_directory(key: str, path: Path | None) -> ConfigProblem | None:
    if path is None or path.is_dir() or not path.exists():
        return None
    return ConfigProblem(
        key, f"{path} is a file, and a directory is needed", f"set {key}=DIRECTORY", code="FILE_NOT_A_DIRECTORY"
    )


_PACKAGE = Path(__file__).resolve().parents[1]


def packaged_directory(name: Literal["configs", "examples"], package: Path = _PACKAGE) -> Path:
    """Return the directory of configurations or examples.

    Parameters
    ----------
    name : str
        ``"configs"`` or ``"examples"``.
    package : Path
        Directory of the ``codex_ml`` package: a wheel holds the files in it, a checkout beside its ``src``.

    Raises
    ------
    UserError
        If neither place holds the directory: the installation is damaged.
    """
    candidates = (package / "_packaged" / name, package.parents[1] / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"the packaged directory {name!r} is missing",
        why=f"looked in {' and '.join(str(candidate) for candidate in candidates)}",
        fix="install codex-ml again",
        code="CONFIG_PACKAGED_FILES_MISSING",
    )
