"""The hashed lock files, and their agreement with constraints.txt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hashed_lock import (
    CONSTRAINTS,
    CORE,
    CUDA_LOCK,
    LOCK,
    TOOL_LOCKS,
    Locked,
    LockError,
    chosen,
    lock_text,
    main,
    parse_lock,
    problems_of_checkout,
    read_lock,
)

DIGEST = "0123456789abcdef" * 4
OTHER = "f" * 64


@pytest.fixture
def checkout(tmp_path: Path, repository_root: Path) -> Path:
    """Return a directory with the lock files of this repository."""
    for name in (CONSTRAINTS, LOCK, CUDA_LOCK, *TOOL_LOCKS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository_root / name, tmp_path / name)
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    """Replace a text in a file once."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_lock_text_is_what_parse_lock_reads() -> None:
    """Packages and hashes are sorted, each hash occurs once, and pip can read the lines."""
    packages = [
        Locked("torch", "2.13.0", (OTHER, DIGEST, OTHER), ("core",)),
        Locked("Abc_d", "1.0", (DIGEST,), ("serve", "tracking"), is_source_only=True),
    ]
    text = lock_text("# head\n", packages)
    assert text.splitlines()[1:] == [
        "Abc_d==1.0 \\",
        f"    --hash=sha256:{DIGEST}",
        "    # for: serve, tracking; source distribution only",
        "torch==2.13.0 \\",
        f"    --hash=sha256:{DIGEST} \\",
        f"    --hash=sha256:{OTHER}",
        "    # for: core",
    ]
    read = parse_lock(text, "lock")
    assert read["abc-d"] == packages[1]
    assert read["torch"] == Locked("torch", "2.13.0", (DIGEST, OTHER), ("core",))
    assert lock_text("# head\n", read.values()) == text
    assert list(chosen(read, {"serve"})) == ["abc-d"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n", "lock:1: neither"),
        ("a>=1\n", "lock:1: neither"),
        (f"a==1 \\\n    --hash=md5:{DIGEST}\n", "lock:2: neither"),
        (f"a==1 \\\n    --hash=sha256:{DIGEST[1:]}\n", "lock:2: neither"),
        ("--index-url file:///somewhere\n", "lock:1: neither"),
        ("a_b==1\nA-B==1\n", "lock:2: a-b is there twice"),
    ],
    ids=["no version", "range", "other algorithm", "short digest", "option of pip", "twice"],
)
def test_parse_lock_anything_else_is_refused(text: str, words: str) -> None:
    """A line that is parsed in part would lock less than it shows."""
    with pytest.raises(LockError, match=words):
        parse_lock(text, "lock")


def test_read_lock_missing_file_says_what_to_run(tmp_path: Path) -> None:
    """The lock is generated, so the error names the command."""
    with pytest.raises(LockError, match="make lock"):
        read_lock(tmp_path / LOCK)


def test_lock_files_of_this_repository_agree(repository_root: Path) -> None:
    """Names and versions of constraints.txt, a hash for each, no host of an index, the same text when written again."""
    assert problems_of_checkout(repository_root)[0] == []
    for name in (LOCK, CUDA_LOCK, *TOOL_LOCKS):
        text = (repository_root / name).read_text(encoding="utf-8")
        head = "".join(f"{line}\n" for line in text.split("\n") if line.startswith("#"))
        assert lock_text(head, read_lock(repository_root / name).values()) == text
        assert not re.search(r"https?://|file:", text)


def test_lock_of_this_repository_holds_what_an_image_needs(repository_root: Path) -> None:
    """Torch for CPUs in one file, for CUDA in the other with what it needs; two packages without wheels."""
    packages, with_cuda = read_lock(repository_root / LOCK), read_lock(repository_root / CUDA_LOCK)
    assert {name for name, one in packages.items() if one.is_source_only} == {"antlr4-python3-runtime", "rouge-score"}
    assert packages["torch"].groups == (CORE,)
    # Wheels for several Python versions on two architectures; the two locks share no file.
    assert len(with_cuda["torch"].digests) >= 8
    assert set(packages["torch"].digests).isdisjoint(with_cuda["torch"].digests)
    assert {"hatchling", "setuptools"} <= chosen(packages, {"build"}).keys()
    assert not [name for name in packages if name.startswith(("nvidia-", "triton"))]
    assert {"torch", "triton", "nvidia-cublas", "nvidia-ml-py"} <= chosen(with_cuda, {CORE, "cuda"}).keys()


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (CONSTRAINTS, "accelerate==", "accelerate==9", "accelerate (got"),
        (CONSTRAINTS, "absl-py==", "zz-new==", "zz-new is missing"),
        (CONSTRAINTS, "absl-py==", "zz-new==", "absl-py is not in constraints.txt"),
        (CONSTRAINTS, "torch==2.13.0", f"torch==2.13.0 --hash=sha256:{DIGEST}", "a hash makes pip refuse"),
        (CUDA_LOCK, "triton==", "torch==", "torch is there twice"),
        (CUDA_LOCK, "accelerate==", "accelerate==9", "requirements-hashed-cuda.txt: accelerate (got"),
        (LOCK, "numpy==", "cuda-numpy==", "numpy is missing"),
        (LOCK, "    # for: core\n", "", "no '# for:' line"),
    ],
    ids=[
        "other version",
        "not locked",
        "locked only",
        "hash in the constraints",
        "locked twice",
        "other version for CUDA",
        "gone",
        "no group",
    ],
)
def test_main_disagreement_fails(
    checkout: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, words: str
) -> None:
    """The problem is reported with its file."""
    assert main(["--root", str(checkout)]) == 0
    change(checkout / file, old, new)
    assert main(["--root", str(checkout)]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("name", [LOCK, CUDA_LOCK, *TOOL_LOCKS])
def test_main_package_without_a_hash_fails(checkout: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """First one entry has no hash, then the file is missing."""
    file = checkout / name
    file.write_text(re.sub(r"(?: \\\n    --hash=sha256:[0-9a-f]+)+", "", file.read_text(), count=1))
    assert main(["--root", str(checkout)]) == 1
    assert "has no hash" in capsys.readouterr().out
    file.unlink()
    assert main(["--root", str(checkout)]) == 1
    assert "missing" in capsys.readouterr().out
