"""Tests of when the image test is skipped, fails, and installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.image_test import NEEDED, install_packages, main
from images.shell import Shell, StepError


def test_main_that_cannot_run_is_skipped_or_fails_when_required(capsys) -> None:
    """A reason is printed; where Docker is required a skip is a failure."""
    nothing = {"PATH": ""}
    assert main([], nothing) == 0
    assert "skipped: " in capsys.readouterr().out
    assert main([], {**nothing, "CODEX_REQUIRE_DOCKER": "1"}) == 1
    assert "FAIL" in capsys.readouterr().out


def test_install_packages_all_there_installs_nothing(tmp_path: Path) -> None:
    """No package manager is started: there is none on this path."""
    install_packages(Shell(tmp_path, {"PATH": ""}), which=lambda name: f"/bin/{name}")


def test_install_packages_one_missing_asks_apt(tmp_path: Path) -> None:
    """Its failure ends the test with what it said."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho no mirror; exit 100\n")
    apt.chmod(0o755)
    with pytest.raises(StepError, match="no mirror"):
        install_packages(
            Shell(tmp_path, {"PATH": f"{tmp_path}:/bin"}), which=lambda name: None if name == NEEDED[0] else name
        )
