"""Tests of what a wheelhouse must be before an image may be made of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from images.wheelhouse import (
    STAMP,
    Wheelhouse,
    WheelhouseError,
    check_kind,
    check_unchanged,
    made_from,
    requirements_of,
    source_date_epoch,
)


@pytest.fixture
def wheels(tmp_path: Path):
    """Return what writes wheels of some names."""

    def written(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).write_bytes(name.encode())
        return [tmp_path / name for name in names]

    return written


def test_requirements_of_wheels_pins_each_by_digest(wheels) -> None:
    """Names in their canonical form; a local version and a build number are understood."""
    found = wheels(
        "Foo_Bar-1.0-py3-none-any.whl", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "x-2-1-py3-none-any.whl"
    )
    lines = requirements_of(found).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["foo-bar==1.0", "torch==2.13.0+cpu", "x==2"]
    assert all(
        f"sha256:{hashlib.sha256(one.name.encode()).hexdigest()}" in line
        for one, line in zip(found, lines, strict=True)
    )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "empty"),
        (("a-1-py3-none-any.whl", "A-2-py3-none-any.whl"), "twice"),
        (("notes.txt",), "not the name of a wheel"),
    ],
)
def test_requirements_of_what_pip_could_misread_is_refused(wheels, names: tuple[str, ...], words: str) -> None:
    """Nothing, another version of the same, or another file."""
    with pytest.raises(WheelhouseError, match=words):
        requirements_of(wheels(*names))


def test_check_kind_other_torch_than_asked_for_is_refused(wheels) -> None:
    """Gigabytes of CUDA in the CPU image, or a CUDA image that computes on the CPU."""
    cuda = wheels(
        "torch-2.13.0-cp311-cp311-linux_x86_64.whl", "nvidia_cublas-13-py3-none-any.whl", "triton-3-py3-none-any.whl"
    )
    cpu = wheels("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "nvidia_ml_py-13-py3-none-any.whl")
    check_kind(cuda, cuda=True)
    check_kind(cpu, cuda=False)
    with pytest.raises(WheelhouseError, match="PIP_EXTRA_INDEX_URL"):
        check_kind(cuda, cuda=False)
    with pytest.raises(WheelhouseError, match="PIP_FIND_LINKS"):
        check_kind(cpu, cuda=True)


def test_check_unchanged_wheel_that_was_exchanged_is_refused(wheels, tmp_path: Path) -> None:
    """What was fetched once is taken over by its digest, not by its name."""
    found = wheels("a-1-py3-none-any.whl", "b-1-py3-none-any.whl")
    (tmp_path / "requirements.txt").write_text(requirements_of(found))
    check_unchanged(tmp_path)
    found[0].write_bytes(b"another")
    with pytest.raises(WheelhouseError, match="remove it and make it again"):
        check_unchanged(tmp_path)


def test_source_date_epoch_is_given_or_of_the_commit(tmp_path: Path) -> None:
    """The same source gives the same time, also where there is no repository."""
    assert source_date_epoch(tmp_path, {"SOURCE_DATE_EPOCH": "7"}) == "7"
    without = source_date_epoch(tmp_path, {})
    assert without == source_date_epoch(tmp_path, {})
    assert without.isdigit()


def test_made_from_changes_with_pins_and_extras(tmp_path: Path) -> None:
    """Third-party wheels are fetched again then, and only then."""
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text("a")
    first = made_from(tmp_path, "serve")
    assert made_from(tmp_path, "serve") == first
    assert made_from(tmp_path, "serve,cuda") != first
    (tmp_path / "constraints.txt").write_text("b")
    assert made_from(tmp_path, "serve") != first


@pytest.mark.slow
def test_make_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """A checkout that cannot be packed: the wheelhouse of before is still whole, and nothing lies beside it."""
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text("broken = [")
    old = tmp_path / "wheelhouse"
    old.mkdir()
    (old / STAMP).write_text("of before")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(subprocess.CalledProcessError):
        Wheelhouse(tmp_path, old, "serve", cuda=False).make()
    assert sorted(tmp_path.iterdir()) == before
    assert [one.name for one in old.iterdir()] == [STAMP]
