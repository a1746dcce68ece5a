"""Which preparers there are: those of the toolkit, of installed packages, and of a directory that the user names."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml
from pydantic import ValidationError

from codex_ml.config.yaml_bounds import read_bounded_yaml
from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.files import Row, read_source
from codex_ml.errors import ConfigError, ConfigProblem, UserError
from codex_ml.io.untrusted import UntrustedFileError
from codex_ml.registry import Registry

CONFIG_NAME, CODE_NAME = "preparer.yaml", "preparer.py"
ENTRY_POINT_GROUP = "codex_ml.preparers"

ReadSource = Callable[[Path, PreparerConfig], Iterator[Row]]


@dataclass(frozen=True)
class Preparer:
    """A way to make records of raw files.

    Attributes
    ----------
    config : PreparerConfig
        What it is told, before options of the command line.
    read_fn : callable
        Reads one raw file into rows.
    code_digest : str
        SHA-256 of code that comes with it; empty where the toolkit's own readers do.
    """

    config: PreparerConfig
    read_fn: ReadSource = read_source
    code_digest: str = ""


# Read on demand: other directories need not be valid.
Entry: TypeAlias = Preparer | Callable[[], Preparer]


def packaged_preparers() -> Registry[Entry]:
    """Return the preparers of the toolkit and of installed packages (entry points ``codex_ml.preparers``)."""
    registry: Registry[Entry] = Registry("preparer", ENTRY_POINT_GROUP)
    for name, config in _PACKAGED.items():
        registry.register(name, Preparer(config))
    return registry


def find_preparers(directory: Path | None, registry: Registry[Entry] | None = None) -> Registry[Entry]:
    """Return the preparers that can be named, with those of a directory of the user's.

    Each is a directory of its own there: ``NAME/preparer.yaml`` and, where rows need code, ``NAME/preparer.py``. That
    code is run with all rights of the user, so the directory is never looked for, only taken when it is named.

    Raises
    ------
    UserError
        If the directory is none, or holds a preparer under a name that is taken.
    """
    registry = packaged_preparers() if registry is None else registry
    if directory is None:
        return registry
    if not directory.is_dir():
        raise UserError(
            f"--preparer-dir: {directory} is no directory",
            fix="name a directory of preparers",
            code="DATA_PREPARER_DIRECTORY_MISSING",
        )
    for config in sorted(directory.glob(f"*/{CONFIG_NAME}")):
        registry.register(config.parent.name, _Lazy(config.parent).load)
    return registry


def get_preparer(registry: Registry[Entry], name: str) -> Preparer:
    """Return a preparer by its name; its files are read now, and those of no other.

    Raises
    ------
    UserError
        If no preparer has the name, or its files cannot be used.
    """
    found = registry.get(name)
    preparer: object = found() if callable(found) else found
    if not isinstance(preparer, Preparer):
        raise UserError(
            f"preparer {name!r} is a {type(preparer).__name__}, not a Preparer",
            fix="an entry point names a codex_ml.data.prepare.registry.Preparer, or a function that returns one",
            code="DATA_PREPARER_WRONG_TYPE",
        )
    return preparer


@dataclass(frozen=True)
class _Lazy:
    """A preparer in a directory, not read yet."""

    directory: Path

    def load(self) -> Preparer:
        config = read_config(self.directory / CONFIG_NAME)
        code = self.directory / CODE_NAME
        if not os.path.lexists(code):
            return Preparer(config)
        if not code.is_file():
            raise UserError(
                f"{code} is no file",
                why="a preparer without its code would read the rows in another way",
                fix="correct the link, or remove it",
                code="DATA_PREPARER_CODE_MISSING",
            )
        return Preparer(config, _read_function(code), hashlib.sha256(code.read_bytes()).hexdigest())


def read_config(path: Path) -> PreparerConfig:
    """Return the config in a ``preparer.yaml``.

    Raises
    ------
    ConfigError
        With every problem of the file, by dotted key.
    """
    try:
        values = yaml.safe_load(read_bounded_yaml(path))
    except (OSError, UnicodeDecodeError, UntrustedFileError, yaml.YAMLError) as error:
        raise ConfigError(
            [
                ConfigProblem(
                    str(path), f"cannot be read: {error}", "write KEY: VALUE lines", code="CONFIG_FILE_UNREADABLE"
                )
            ]
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            [
                ConfigProblem(
                    str(path),
                    "holds no mapping of keys to values",
                    "write KEY: VALUE lines",
                    code="CONFIG_NOT_A_MAPPING",
                )
            ]
        )
    return checked_config(values, str(path))


def checked_config(values: dict[str, Any], place: str) -> PreparerConfig:
    """Return validated values.

    Raises
    ------
    ConfigError
        With every problem, by dotted key; ``place`` leads each.
    """
    try:
        return PreparerConfig.model_validate(values)
    except ValidationError as error:
        known = ", ".join(PreparerConfig.model_fields)
        problems = [
            ConfigProblem(
                f"{place}: {'.'.join(str(part) for part in detail['loc'])}".removesuffix(": "),
                detail["msg"].removeprefix("Value error, "),
                f"the keys are {known}" if detail["type"] == "extra_forbidden" else "",
                code="CONFIG_INVALID_VALUE",
            )
            for detail in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError(problems) from None


def _read_function(path: Path) -> ReadSource:
    """Return the function ``read`` of a preparer's own file."""
    # allowed: no-dynamic-import, the user names a preparer of their own, and its code is meant to run
    spec = importlib.util.spec_from_file_location(f"codex_ml_preparer_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)  # allowed: no-dynamic-import, the same file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code, which may raise anything
        raise UserError(
            f"{path} cannot be loaded",
            why=f"{type(error).__name__}: {error}",
            fix="correct the file",
            code="DATA_PREPARER_NOT_LOADABLE",
        ) from error
    read = getattr(module, "read", None)
    if not callable(read):
        raise UserError(
            f"{path} defines no function read(path, config)",
            fix="write one that yields a dict a record",
            code="DATA_PREPARER_NO_READ",
        )

    give = cast("Callable[[Path, PreparerConfig], Iterator[object]]", read)

    def rows(source: Path, config: PreparerConfig) -> Iterator[Row]:
        try:
            for number, value in enumerate(give(source, config), start=1):
                if not isinstance(value, dict):
                    raise UserError(
                        f"{path}: read gave a {type(value).__name__} as record {number}",
                        fix="yield a dict a record",
                        code="DATA_PREPARER_BAD_RECORD",
                    )
                yield Row(number, 0, value)
        except UserError:
            raise
        except Exception as error:  # the user's own code, which may raise anything
            # What such an exception says is a row as often as not, so its words are not shown.
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            raise UserError(
                f"{path}:{lines[-1] if lines else 1}: read failed on {source.name} with {type(error).__name__}",
                fix="correct the file; CODEX_ML_DEBUG=1 shows the traceback",
                code="DATA_PREPARER_FAILED",
            ) from error

    return rows


_PACKAGED = {
    "records": PreparerConfig(description="rows of a JSONL, JSON, CSV, TSV, Parquet or Arrow file"),
    "text": PreparerConfig(kind="text", description="running text in UTF-8, cut into paragraphs, lines or files"),
    "gsm8k": PreparerConfig(
        description="grade-school mathematics (question, answer) of github.com/openai/grade-school-math",
        columns={"prompt": "question", "completion": "answer"},
        format="prompt_completion",
    ),
    "tinyshakespeare": PreparerConfig(
        kind="text",
        description="40,000 lines of Shakespeare's plays, one speech a record, and a tokenizer",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        vocabulary_size=2048,
    ),
}
