"""Tests of how an image is built, with a Docker client of the test's own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hashed_lock import CUDA_LOCK, LOCK, Locked, lock_text
from images.build import BuildError, build_command, build_environment, check_wheelhouse, labels
from images.wheelhouse import REQUIREMENTS, requirements_of, sha256


@pytest.fixture
def docker(tmp_path: Path):
    """Return what writes a client that says a version and knows one image."""

    def written(version: str) -> str:
        program = tmp_path / "docker"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in\n  --version) echo "Docker version {version}, build x";;\n'
            '  image) [ "$5" = known ] && echo sha256:base || { echo "No such image: $5" >&2; exit 1; };;\nesac\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    return written


@pytest.mark.parametrize(("version", "built_in"), [("20.10.24+dfsg1", True), ("28.2.2", False)])
def test_build_environment_asks_for_buildkit_where_it_is_built_in(docker, version: str, built_in: bool) -> None:
    """A newer client without its plug-in would refuse to build."""
    environment = build_environment(docker(version), {"A": "b"})
    assert environment["A"] == "b"
    assert ("DOCKER_BUILDKIT" in environment) == built_in


def test_labels_say_what_the_image_is_made_of(docker, tmp_path: Path) -> None:
    """Version, digests of base and wheels; the commit is unknown outside a repository."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    (wheelhouse / "requirements.txt").write_text("a==1\n")
    found = labels(tmp_path, wheelhouse, "known", docker("20.10.24"))
    assert (found["VERSION"], found["BASE_DIGEST"]) == ("1.2.3", "sha256:base")
    assert found["WHEELHOUSE_DIGEST"].startswith("sha256:")


def test_labels_missing_wheelhouse_or_base_says_what_to_run(docker, tmp_path: Path) -> None:
    """Docker's own words would not name the target of make."""
    with pytest.raises(BuildError, match="make wheelhouse"):
        labels(tmp_path, tmp_path / "wheelhouse", "known", docker("20.10.24"))
    (tmp_path / "wheelhouse").mkdir()
    (tmp_path / "wheelhouse" / "requirements.txt").write_text("a==1\n")
    with pytest.raises(BuildError, match="make base-image"):
        labels(tmp_path, tmp_path / "wheelhouse", "other", docker("20.10.24"))


def test_build_command_has_no_network() -> None:
    """Whatever a package's setup would fetch, it cannot."""
    command = build_command("docker", "cpu", "codex:cpu", {"VERSION": "1"})
    assert "--network=none" in command
    assert command[command.index("--build-arg") :][:2] == ["--build-arg", "VERSION=1"]


def test_check_wheelhouse_exchanged_wheel_is_refused_although_its_list_agrees(tmp_path: Path) -> None:
    """A wheel and its list may be exchanged in transit; the lock is in the checkout."""
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    with pytest.raises(BuildError, match="make wheelhouse first"):
        check_wheelhouse(tmp_path, wheelhouse)
    wheel = wheelhouse / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"as it was locked")
    (tmp_path / LOCK).write_text(lock_text("", [Locked("a", "1", (sha256(wheel),), ("core",))]))
    (tmp_path / CUDA_LOCK).write_text("")
    (wheelhouse / REQUIREMENTS).write_text(requirements_of([wheel]))
    check_wheelhouse(tmp_path, wheelhouse)
    wheel.write_bytes(b"another")
    with pytest.raises(BuildError, match="remove it and make it again"):
        check_wheelhouse(tmp_path, wheelhouse)
    (wheelhouse / REQUIREMENTS).write_text(requirements_of([wheel]))
    with pytest.raises(BuildError, match="its SHA-256 is not in the lock"):
        check_wheelhouse(tmp_path, wheelhouse)
