"""An environment of a tool counts when it is whole, and made from the pins as they are now."""

from __future__ import annotations

from pathlib import Path

import pytest

from hashed_lock import TOOL_LOCKS, read_lock
from tool_environments import ALL, STAMP, ToolEnvironment, main

TOOL = ToolEnvironment("planted", Path("pins.txt"), "planted")


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A checkout with the environment in place."""
    (tmp_path / "pins.txt").write_text("planted==1.0\n")
    TOOL.program_path(tmp_path).parent.mkdir(parents=True)
    TOOL.program_path(tmp_path).write_text("")
    (TOOL.directory(tmp_path) / STAMP).write_text("planted==1.0\n")
    return tmp_path


def test_is_current_whole_environment_is_and_is_not_made_again(ready: Path) -> None:
    """Nothing is installed, so no network is asked."""
    assert TOOL.is_current(ready)
    assert TOOL.ensure(ready) == TOOL.program_path(ready)


def test_is_current_other_pins_or_parts_missing_is_not(ready: Path) -> None:
    """Changed pins, a program that is gone, an installation that was stopped."""
    (ready / "pins.txt").write_text("planted==2.0\n")
    assert not TOOL.is_current(ready)
    (ready / "pins.txt").write_text("planted==1.0\n")
    TOOL.program_path(ready).unlink()
    assert not TOOL.is_current(ready)
    TOOL.program_path(ready).write_text("")
    (TOOL.directory(ready) / STAMP).unlink()
    assert not TOOL.is_current(ready)


@pytest.mark.parametrize("tool", ALL.values(), ids=ALL)
def test_pins_of_every_tool_are_exact(tool: ToolEnvironment, repository_root: Path) -> None:
    """Every line names one version and the hashes of its files, and the tool itself is among them."""
    locked = read_lock(repository_root / tool.pins)
    assert tool.name in locked
    assert all(package.digests for package in locked.values())
    # The gate checks the same files.
    assert tool.pins.as_posix() in TOOL_LOCKS


def test_main_without_setup_only_shows(repository_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a tool."""
    assert main(["--root", str(repository_root)]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == list(ALL)
