"""Tests of how the base image is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.base_image import DEBIAN, bootstrap_command, find_mirror, source_texts


@pytest.mark.parametrize(
    "text",
    [
        "deb http://mirror.example/debian bookworm main\n",
        "# deb http://other.example/debian x\ndeb [signed-by=/k] http://mirror.example/debian/ bookworm main\n",
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
        "deb http://x.example/debian-security bookworm-security main\ndeb http://mirror.example/debian bookworm main\n",
    ],
)
def test_find_mirror_of_the_machine_is_taken(text: str) -> None:
    """In either form of apt's files; the security archive is not the one."""
    assert find_mirror(["", text]) == "http://mirror.example/debian"


def test_find_mirror_none_named_is_debian() -> None:
    """A machine without apt sources."""
    assert find_mirror([]) == DEBIAN


def test_source_texts_absent_directory_is_empty(tmp_path: Path) -> None:
    """No error: Debian's own mirror is then taken."""
    assert source_texts(tmp_path / "none") == []


def test_bootstrap_command_leaves_no_trace_of_the_mirror() -> None:
    """The address of a machine's mirror must not get into an image."""
    command = bootstrap_command(Path("base.tar"), "http://mirror.example/debian")
    assert command[-1] == "http://mirror.example/debian"
    assert any('"$1"/etc/apt/sources.list ' in text and '"$1"/etc/resolv.conf' in text for text in command)
