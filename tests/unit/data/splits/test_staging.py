"""A directory that is made beside its place and then put there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from codex_ml.data.splits.staging import put_in_place, refuse_foreign, staging
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage


def _put(target: Path, content: bytes) -> bool:
    with staging(target, Storage()) as root:
        made = root / "made"
        made.mkdir()
        (made / "a").write_bytes(content)
        return put_in_place(made, target, Storage())


def test_put_in_place_first_again_and_other_content(tmp_path: Path) -> None:
    """Made once, recognised when it is the same, refused when it is not; nothing else stays."""
    target = tmp_path / "deep" / "target"
    assert _put(target, b"1")
    assert not _put(target, b"1")
    with pytest.raises(DataError, match="holds something else"):
        _put(target, b"2")
    assert (target / "a").read_bytes() == b"1"
    assert [item.name for item in target.parent.iterdir()] == ["target"]


def test_put_in_place_empty_directory_is_taken(tmp_path: Path) -> None:
    """An empty directory that somebody made before is no obstacle."""
    (tmp_path / "target").mkdir()
    assert _put(tmp_path / "target", b"1")


@pytest.mark.parametrize("kind", ["file", "foreign", "link"])
def test_refuse_foreign_anything_else_is_refused(tmp_path: Path, kind: str) -> None:
    """A file, a directory with other names, a link into nowhere."""
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("x")
    elif kind == "link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        (target / "b").write_text("x")
    with pytest.raises(DataError, match="holds something else"):
        refuse_foreign(target, ["a"])


def test_staging_body_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The staged directory goes, and so do the parents that were made for it."""
    with pytest.raises(RuntimeError), staging(tmp_path / "x" / "y" / "target", Storage()):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_staging_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The reason of the system is said, as an error that the user can mend."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be made"), staging(tmp_path / "file" / "target", Storage()):
        pass


def test_staging_abandoned_by_a_killed_process_is_removed(tmp_path: Path) -> None:
    """Its age does not matter; locked directories and entries with a similar name stay."""
    names = [".target.1.partial", ".target.2.partial", ".target.x.partial", ".other.1.partial", ".target.1.partial.bak"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("x")
    (tmp_path / ".target.3.partial").symlink_to(tmp_path / ".other.1.partial")
    descriptor = os.open(tmp_path / names[1], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert _put(tmp_path / "target", b"1")
    finally:
        os.close(descriptor)
    assert {item.name for item in tmp_path.iterdir()} == {"target", ".target.3.partial", *names[1:]}
    assert (tmp_path / ".other.1.partial" / "train.jsonl").is_file()
