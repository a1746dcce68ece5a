"""The lint of codex.mk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lint_makefile import main, problems_in_makefile, problems_with_tests, targets_of, warnings_of_make

GOOD = """BIN := bin
.PHONY: help test lint quality clean

help:  ## Show
\t@echo help

test lint quality:  ## Run
\t$(BIN)/run

clean:  ## Remove
\trm -rf $(BIN)
"""


def test_problems_in_makefile_good_file_has_none() -> None:
    """Declared, explained, short."""
    assert problems_in_makefile(GOOD) == []
    assert targets_of(GOOD) == ["help", "test", "lint", "quality", "clean"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("clean:  ## Remove", "clean:", "no '## …'"),
        (" quality clean\n", " quality\n", "clean is not .PHONY"),
        (" quality clean\n", " quality clean gone\n", "which is no target"),
        ("\trm -rf", "    rm -rf", "begins with a tab"),
        ("echo help", "echo help ", "spaces at the end"),
        ("\t$(BIN)/run", "\t$(MAKE) run", "make calls itself"),
        ("\t$(BIN)/run", "\ta\n" * 7, "more than 6 lines"),
        ("clean:  ## Remove\n\trm -rf $(BIN)\n", "", "there is no target clean"),
        ("clean:  ## Remove", "help:  ## Again", "stands in line 4 already"),
    ],
)
def test_problems_in_makefile_planted_fault_is_found(old: str, new: str, problem: str) -> None:
    """Each rule finds what it is for."""
    assert GOOD.count(old) == 1
    assert any(problem in found for found in problems_in_makefile(GOOD.replace(old, new)))


def test_warnings_of_make_undefined_variable_is_found(tmp_path: Path) -> None:
    """What make itself would only warn about is a problem; a file that it cannot read is one."""
    (tmp_path / "Makefile").write_text(GOOD)
    assert warnings_of_make(tmp_path, ["help", "test"]) == []
    (tmp_path / "Makefile").write_text(GOOD.replace("$(BIN)/run", "$(BINN)/run"))
    assert "BINN" in warnings_of_make(tmp_path, ["test"])[0]
    (tmp_path / "Makefile").write_text("endif\n")
    assert warnings_of_make(tmp_path, ["test"])


def test_problems_with_tests_directory_that_no_clone_has_is_found(tmp_path: Path) -> None:
    """An empty directory is in this checkout and in no clone of it: pytest would find no test there."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for name in ("unit", "offline"):
        (tmp_path / "tests" / name).mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_a.py").touch()
    text = "unit:\n\tpytest tests/unit\noffline:\n\tpytest tests/offline\n"
    assert problems_with_tests(text, tmp_path) == ["codex.mk: tests/offline holds no test"]


def test_main_this_checkout_is_clean(repository_root: Path) -> None:
    """Our own makefile follows the rules."""
    assert main(["--root", str(repository_root)]) == 0
