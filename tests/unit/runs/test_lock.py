"""The lock of a run directory is held by one process and vanishes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.errors import UserError
from codex_ml.runs.lock import hold_lock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from codex_ml.runs.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


def test_hold_lock_of_live_process_is_refused_and_kill_frees_it(tmp_path: Path) -> None:
    """The holder is named while it lives; after kill -9 nothing stale is left."""
    path = tmp_path / "run.lock"
    assert not is_locked(path)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(UserError, match=f"{tmp_path.name} is in progress") as caught, hold_lock(path):
            pytest.fail("two processes hold one lock")
        assert f"process {holder.pid}" in caught.value.why
        holder.kill()
        holder.wait(timeout=120)
    assert not is_locked(path)
    with hold_lock(path):
        assert is_locked(path)


def test_hold_lock_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    """Two runs of one process are two runs."""
    with (
        hold_lock(tmp_path / "run.lock"),
        pytest.raises(UserError, match="in progress"),
        hold_lock(tmp_path / "run.lock"),
    ):
        pytest.fail("held twice")


def test_hold_lock_after_error_inside_is_free_again(tmp_path: Path) -> None:
    """A failing run lets go."""
    with pytest.raises(KeyError), hold_lock(tmp_path / "run.lock"):
        raise KeyError
    assert not is_locked(tmp_path / "run.lock")


def test_hold_lock_shorter_process_id_replaces_longer_text(tmp_path: Path) -> None:
    """What an earlier holder wrote does not mix with the new."""
    path = tmp_path / "run.lock"
    path.write_text('{"pid": 12345678901234567890}')
    with hold_lock(path):
        holder = json.loads(path.read_text())
    assert holder["pid"] == os.getpid()
    assert datetime.fromisoformat(holder["started"]) <= datetime.now(UTC)
    assert set(holder) == {"pid", "boot_id", "started"}


@pytest.mark.parametrize("text", ["", "not JSON", '{"pid": 1}', '{"pid": "1", "started": 7}', "[1]"])
def test_hold_lock_whatever_the_file_says_only_the_kernel_decides(tmp_path: Path, text: str) -> None:
    """The text of a living process keeps nobody out; an odd text does not spoil the message for who is kept out."""
    path = tmp_path / "run.lock"
    path.write_text(text)
    assert not is_locked(path)
    with hold_lock(path):
        path.write_text(text)
        with pytest.raises(UserError, match="in progress"), hold_lock(path, patience_seconds=0.0):
            pass


def test_hold_lock_unreadable_holder_is_unknown(tmp_path: Path) -> None:
    """The text in the lock file is information, never evidence."""
    path = tmp_path / "run.lock"
    with hold_lock(path):
        path.write_text("[]")
        with pytest.raises(UserError) as caught, hold_lock(path):
            pytest.fail("held twice")
    assert "process unknown" in caught.value.why


def test_hold_lock_held_for_an_instant_only_is_had(tmp_path: Path) -> None:
    """Whoever merely asks whether a run is alive takes its lock for an instant; a run that starts then waits."""
    path = tmp_path / "run.lock"
    waited: list[float] = []
    with ExitStack() as looking:
        looking.enter_context(hold_lock(path))

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            looking.close()

        with hold_lock(path, sleep=sleep):
            assert is_locked(path)
    assert len(waited) == 1


def test_hold_lock_of_a_run_in_progress_is_refused_after_its_patience(tmp_path: Path) -> None:
    """It waits no longer than it was told, and not at all when told so."""
    path = tmp_path / "run.lock"
    with hold_lock(path):
        for patience, expected in ((0.5, 10), (0.0, 0)):
            waited: list[float] = []
            with (
                pytest.raises(UserError, match="in progress"),
                hold_lock(path, patience_seconds=patience, sleep=waited.append),
            ):
                pytest.fail("held twice")
            assert len(waited) == pytest.approx(expected, abs=1)


def test_is_locked_file_that_may_only_be_read_can_be_asked(tmp_path: Path) -> None:
    """A run directory on a disk that may not be written is looked at all the same."""
    path = tmp_path / "run.lock"
    path.touch(mode=0o400)
    assert not is_locked(path)
