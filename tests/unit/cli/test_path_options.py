"""Plain options for the paths of a configuration."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer

from codex_ml.cli.path_options import PATH_KEYS, with_path_options
from codex_ml.config.paths import PATH_FIELDS, option_name


def test_path_keys_every_path_of_the_schema_has_an_option() -> None:
    """A new path in the schema needs an option too; run.resume_from has its own, data.files are many."""
    assert set(PATH_KEYS.values()) == set(PATH_FIELDS) - {"run.resume_from", "data.files"}


def test_path_keys_options_are_called_as_the_messages_call_them() -> None:
    """What an error advises is an option that there is."""
    assert {f"--{name.replace('_', '-')}": key for name, key in PATH_KEYS.items()} == {
        option_name(key): key for key in PATH_KEYS.values()
    }


def test_with_path_options_gives_the_command_what_was_given() -> None:
    """Only paths that were given reach the command, under their keys; its own options stay."""
    seen: list[tuple[bool, dict[str, Path]]] = []

    @with_path_options
    def command(dry_run: bool = False, *, paths: dict[str, Path]) -> None:
        seen.append((dry_run, paths))

    assert list(inspect.signature(command).parameters) == ["dry_run", *PATH_KEYS, "data_file"]
    none: dict[str, Any] = dict.fromkeys([*PATH_KEYS, "data_file"])
    command(dry_run=True, **{**none, "data_path": Path("a b")})
    assert seen == [(True, {"data.path": Path("a b")})]
    command(**{**none, "data_file": ["notes=a=b, c.jsonl", "web=-x"]})
    assert seen[1] == (False, {"data.files.notes": Path("a=b, c.jsonl"), "data.files.web": Path("-x")})


@pytest.mark.parametrize("pairs", [["a.jsonl"], ["=a"], ["a="], ["a=b", "a=c"]])
def test_with_path_options_file_without_name_is_refused(pairs: list[str]) -> None:
    """A mapping needs both sides, and each name once."""

    @with_path_options
    def command(*, paths: dict[str, Path]) -> None:
        raise AssertionError(paths)

    with pytest.raises(typer.BadParameter, match=r"two sides|given twice"):
        command(**dict.fromkeys(PATH_KEYS), data_file=pairs)
