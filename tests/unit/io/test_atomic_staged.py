"""Staged files and directories are locked while their process runs; a later process removes abandoned ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage, make_locked_directory, remove_abandoned, staged_path, staged_pattern

# Creates a staging directory with a record and keeps it locked.
_STAGES = """
import sys, time
from pathlib import Path
from codex_ml.data.splits.staging import staging
from codex_ml.io.atomic import Storage
with staging(Path(sys.argv[1]), Storage()) as root:
    (root / "records").write_text("a record")
    print(root.name, flush=True)
    time.sleep(600)
"""


class _TakenOnce(Storage):
    """Storage on which another process removes the first directory before it is locked."""

    def __init__(self) -> None:
        self.made = 0

    def make_one_directory(self, path: Path) -> None:
        super().make_one_directory(path)
        self.made += 1
        if self.made == 1:
            path.rmdir()


@pytest.mark.timeout(300)
def test_remove_abandoned_waits_for_the_death_of_the_process(tmp_path: Path) -> None:
    """A locked directory stays; after SIGKILL it is removed, even if its process id belongs to a new process."""
    target = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", _STAGES, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    try:
        assert remove_abandoned(tmp_path, staged_pattern(target), Storage()) == []
        assert (tmp_path / name / "records").is_file()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    own = tmp_path / f".out.{os.getpid()}.partial"
    (tmp_path / name).rename(own)
    assert remove_abandoned(tmp_path, staged_pattern(target), Storage()) == [own.name]
    assert list(tmp_path.iterdir()) == []


def test_remove_abandoned_deletes_files_and_leaves_links_and_pipes(tmp_path: Path) -> None:
    """A link can point to any place, and the toolkit never stages a pipe."""
    (tmp_path / "kept").write_text("x")
    (tmp_path / ".a.1.partial").write_text("x")
    (tmp_path / ".a.2.partial").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / ".a.3.partial")
    assert remove_abandoned(tmp_path, staged_pattern(tmp_path / "a"), Storage()) == [".a.1.partial"]
    assert {path.name for path in tmp_path.iterdir()} == {"kept", ".a.2.partial", ".a.3.partial"}


def test_make_locked_directory_taken_before_it_was_locked_is_made_again(tmp_path: Path) -> None:
    """Another process may remove the directory as abandoned before it is locked."""
    storage, path = _TakenOnce(), staged_path(tmp_path / "out")
    descriptor = make_locked_directory(path, storage)
    try:
        assert storage.made == 2
        assert path.is_dir()
        assert remove_abandoned(tmp_path, staged_pattern(tmp_path / "out"), Storage()) == []
    finally:
        os.close(descriptor)
    with pytest.raises(FileExistsError):
        make_locked_directory(path, Storage())
