"""Banned words are found in texts for readers; names of tests and pages may contain them."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_words import findings, is_checked, main


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("the run goes on", ["goes on"]),
        ("Stands alone, and lies in a room", ["Stands", "lies in", "room"]),
        ("tests/faults/test_run.py::test_run_without_a_word_at_work", []),
        ("standard understanding, bathroom, bestand", []),
        ("[files](decisions/0014-files-from-strangers.md)", []),
        ("the process died unexpectedly", []),
    ],
)
def test_findings_whole_words_count_and_names_do_not(line: str, found: list[str]) -> None:
    """Words are matched in any case, on word borders."""
    assert [word for _, word, _ in findings(line)] == found


def test_findings_line_and_advice_are_given() -> None:
    """The advice names the usual replacement."""
    assert list(findings("first\nbegin anew\n")) == [(2, "anew", "again")]


def test_is_checked_covers_package_and_pages_for_readers() -> None:
    """Tests, tools and decisions are not checked."""
    assert is_checked("src/codex_ml/data/dataset.py")
    assert is_checked("docs/how-to/serve-a-model.md")
    assert is_checked("README.md")
    assert not any(
        map(is_checked, ("tests/unit/test_errors.py", "docs/decisions/0001-the-first-stair.md", "tools/a.py"))
    )


def test_main_repository_has_no_banned_word(repository_root: Path) -> None:
    """The hook passes on this tree."""
    assert main(["--root", str(repository_root)]) == 0
