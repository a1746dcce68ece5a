"""Tests of what a wheelhouse must be before an image may be made of it."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from hashed_lock import CUDA_LOCK, LOCK, Locked
from images.wheelhouse import (
    STAMP,
    Wheelhouse,
    WheelhouseError,
    check_kind,
    check_locked,
    check_unchanged,
    cuda_requirements,
    made_from,
    requirements_of,
    source_date_epoch,
    write_requirements,
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


def torch_wheel(directory: Path, requires: tuple[str, ...]) -> Path:
    """Write a wheel of torch with these requirements."""
    directory.mkdir()
    wheel = directory / "torch-2.13.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
        archive.writestr("torch-2.13.0.dist-info/METADATA", f"Name: torch\n{lines}\nA description.\n")
    return wheel


def test_check_kind_other_torch_than_asked_for_is_refused(tmp_path: Path) -> None:
    """Gigabytes of CUDA in the CPU image, or a CUDA image that computes on the CPU."""
    cuda = torch_wheel(tmp_path / "cuda", ("filelock", "nvidia-cublas==13; sys_platform == 'linux'", "triton==3"))
    cpu = torch_wheel(tmp_path / "cpu", ("filelock", "sympy>=1"))
    assert cuda_requirements(cuda) == ["nvidia-cublas", "triton"]
    assert cuda_requirements(cpu) == []
    check_kind([cuda], cuda=True)
    check_kind([cpu], cuda=False)
    with pytest.raises(WheelhouseError, match="PIP_EXTRA_INDEX_URL"):
        check_kind([cuda], cuda=False)
    with pytest.raises(WheelhouseError, match="PIP_FIND_LINKS"):
        check_kind([cpu], cuda=True)


def digest_of(name: str) -> str:
    """Return the digest of the content that the fixture ``wheels`` writes into a file of this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def test_check_locked_wheel_of_the_lock_passes(wheels, tmp_path: Path) -> None:
    """Hashes are compared; a local version is the same release; a wheel built here is compared by version."""
    local = "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"
    wheels(local, "codex_ml-0.1.0-py3-none-any.whl", "rouge_score-0.1.2-py3-none-any.whl")
    locked = {
        "torch": Locked("torch", "2.13.0", ("0" * 64, digest_of(local)), ("core",)),
        "rouge-score": Locked("rouge_score", "0.1.2", ("0" * 64,), ("core",), is_source_only=True),
    }
    check_locked(tmp_path, locked)


@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ({"a": Locked("a", "1", ("0" * 64,), ("core",))}, "SHA-256 is not in"),
        ({"a": Locked("a", "2", (digest_of("a-1-py3-none-any.whl"),), ("core",))}, "expected 2"),
        ({"a": Locked("a", "2", ("0" * 64,), ("core",), is_source_only=True)}, "expected 2"),
        ({}, "no such package"),
    ],
    ids=["other hash", "other version", "other version, built here", "not locked"],
)
def test_check_locked_other_wheel_is_refused(wheels, tmp_path: Path, locked: dict[str, Locked], words: str) -> None:
    """The file name does not prove the content."""
    wheels("a-1-py3-none-any.whl")
    with pytest.raises(WheelhouseError, match=words):
        check_locked(tmp_path, locked)


@pytest.mark.slow
def test_write_requirements_source_with_another_hash_is_refused_before_its_code_runs(tmp_path: Path) -> None:
    """The comparison is done by pip, so no code of an unchecked source distribution runs."""
    index = tmp_path / "index"
    index.mkdir()
    with tarfile.open(index / "planted-1.0.tar.gz", "w:gz") as archive:
        text = b"raise SystemExit('the code of an unchecked package ran')\n"
        member = tarfile.TarInfo("planted-1.0/setup.py")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    venv.create(tmp_path / "venv", with_pip=True)
    planted = {"planted": Locked("planted", "1.0", ("0" * 64,), ("core",))}
    requirements = write_requirements(tmp_path / "wanted.txt", planted)
    command = [
        str(tmp_path / "venv" / "bin" / "python"),
        "-m",
        "pip",
        "wheel",
        "--no-index",
        "--find-links",
        str(index),
    ]
    command += ["--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517", "--requirement", requirements]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert "DO NOT MATCH THE HASHES" in answer.stdout + answer.stderr
    assert "unchecked package ran" not in answer.stdout + answer.stderr


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
    for name in (LOCK, CUDA_LOCK, "pyproject.toml"):
        (tmp_path / name).write_text("a")
    first = made_from(tmp_path, "serve")
    assert made_from(tmp_path, "serve") == first
    assert made_from(tmp_path, "serve,cuda") != first
    (tmp_path / LOCK).write_text("b")
    assert made_from(tmp_path, "serve") != first


@pytest.mark.slow
def test_make_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """A checkout that cannot be packed: the wheelhouse of before is still whole, and nothing lies beside it."""
    (tmp_path / "pyproject.toml").write_text("broken = [")
    (tmp_path / LOCK).write_text("")
    old = tmp_path / "wheelhouse"
    old.mkdir()
    (old / STAMP).write_text("of before")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(subprocess.CalledProcessError):
        Wheelhouse(tmp_path, old, "serve", cuda=False).make()
    assert sorted(tmp_path.iterdir()) == before
    assert [one.name for one in old.iterdir()] == [STAMP]
