"""The references of commands and settings are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from make_reference import REFERENCE, commands_page, main, settings_page


def test_main_pages_of_the_repository_are_up_to_date(repository_root: Path) -> None:
    """Run `make reference` after a change of an option, a setting or a help text."""
    assert main(["--check", "--root", str(repository_root)]) == 0


def test_main_changed_page_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An edited page and a missing one fail the check."""
    assert main(["--root", str(tmp_path)]) == 0
    page = tmp_path / REFERENCE / "settings.md"
    page.write_text(page.read_text("utf-8") + "edited\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{page} is out of date; run `make reference`\n"


def test_commands_page_has_every_command_and_its_examples() -> None:
    """Subcommands have their full names; examples are code."""
    page = commands_page()
    for heading in ("## codex-ml train\n", "## codex-ml data split\n", "## codex-ml runs verify\n"):
        assert heading in page
    assert "```\ncodex-ml train --config-name=examples/minimal\n" in page


def test_settings_page_has_keys_of_training_and_of_evaluation() -> None:
    """Each key is one row with its default."""
    page = settings_page()
    assert "| `adapter.r` | integer | `8` |" in page
    assert "| `eval.split` |" in page
