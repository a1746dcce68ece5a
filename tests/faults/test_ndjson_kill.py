"""A writer of NDJSON that is killed at any instant and continued: no line is lost, cut or doubled."""

from __future__ import annotations

import fcntl
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codex_ml.monitoring.codex_logging import ndjson_files, read_ndjson

pytestmark = pytest.mark.slow

RECORDS = 10_000
MAX_BYTES = 3000

# Goes on after the records that are there; each is acknowledged once `write` has returned. Where the fourth argument
# names an instant of a rotation, the process kills itself there, at the rotation that the fifth one counts.
WRITER = """
import os, signal, sys
from pathlib import Path
from codex_ml.monitoring.codex_logging import NdjsonWriter, no_redaction, read_ndjson
from codex_ml.io.atomic import Storage

class KillingStorage(Storage):
    rotations = 0

    def replace(self, source, target):
        self.rotations += 1
        self.die("before the rename")
        super().replace(source, target)
        self.die("after the rename")

    def fsync_directory(self, path):
        self.die("after the new file")
        super().fsync_directory(path)

    def die(self, instant):
        if instant == wanted and self.rotations == at:
            os.kill(os.getpid(), signal.SIGKILL)

path, wanted = Path(sys.argv[1]), sys.argv[4]
total, max_bytes, at = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[5])
with NdjsonWriter(path, max_bytes, redact=no_redaction, storage=KillingStorage()) as writer:
    for number in range(sum(1 for _ in read_ndjson(path)), total):
        writer.write({"number": number, "text": "\\u2028x" * (number % 23)})
        os.write(1, b"%d\\n" % number)
"""


def start(path: Path, total: int = RECORDS, instant: str = "never", rotation: int = 0) -> subprocess.Popen[bytes]:
    """Start a writer that goes on until all records are there."""
    arguments = [str(path), str(total), str(MAX_BYTES), instant, str(rotation)]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    # A small pipe: the writer cannot run far ahead of whoever is to kill it.
    fcntl.fcntl(writer.stdout, fcntl.F_SETPIPE_SZ, 4096)
    return writer


def acknowledged_until(writer: subprocess.Popen[bytes], kill_at: int, pause_seconds: float = 0.0) -> list[int]:
    """Return the numbers that a writer acknowledges; after one of them it is killed, a moment later."""
    assert writer.stdout is not None
    seen: list[int] = []
    for line in writer.stdout:
        seen.append(int(line))
        if seen[-1] == kill_at:  # numbers come one by one, so it is met
            time.sleep(pause_seconds)
            writer.send_signal(signal.SIGKILL)
    writer.wait()
    return seen


def numbers(path: Path) -> list[int]:
    """Return the numbers of all records, in the order of the files."""
    return [record["number"] for record in read_ndjson(path)]


def check_files(path: Path) -> None:
    """Check every byte: whole JSON lines only, no file above the threshold, rotated files counted without a gap."""
    files = ndjson_files(path)
    assert [file.name for file in files] == [f"{path.name}.{number}" for number in range(1, len(files))] + [path.name]
    for file in files:
        content = file.read_bytes()
        assert len(content) <= MAX_BYTES
        assert content.endswith(b"\n") or not content
        for line in content.split(b"\n")[:-1]:
            json.loads(line)


@pytest.mark.parametrize("seed", [0, 1])
def test_ndjson_killed_and_continued_holds_every_record_once(tmp_path, seed):
    """10,000 records through some hundred files and many kills: what was acknowledged is there, and nothing twice."""
    path = tmp_path / "metrics.ndjson"
    chance = random.Random(seed)
    found: list[int] = []
    kills = 0
    while len(found) < RECORDS - 2000:
        target = len(found) + chance.randrange(50, 1000)
        acknowledged = acknowledged_until(start(path), target, chance.uniform(0, 0.003))
        kills += 1
        # It went on where the files ended: opening them for another round has taken nothing away.
        assert acknowledged[0] == len(found)
        found = numbers(path)
        assert found == list(range(len(found)))
        # The one record after the last that was acknowledged may have been written, too.
        assert acknowledged[-1] + 1 <= len(found) <= acknowledged[-1] + 2
    assert kills >= 4
    last = start(path)
    assert acknowledged_until(last, RECORDS) == list(range(len(found), RECORDS))
    assert last.returncode == 0
    assert numbers(path) == list(range(RECORDS))
    check_files(path)
    assert len(ndjson_files(path)) > 100


@pytest.mark.parametrize("rotation", [1, 7])
@pytest.mark.parametrize("instant", ["before the rename", "after the rename", "after the new file"])
def test_ndjson_killed_inside_a_rotation_holds_every_record_once(tmp_path, instant, rotation):
    """The instants of a rotation, hit exactly: between the files there is no moment at which a line can be lost."""
    path = tmp_path / "metrics.ndjson"
    total = 400
    killed = start(path, total, instant, rotation)
    acknowledged = acknowledged_until(killed, total)
    assert killed.returncode == -signal.SIGKILL
    assert numbers(path) == acknowledged == list(range(len(acknowledged)))
    last = start(path, total)
    assert acknowledged_until(last, total) == list(range(len(acknowledged), total))
    assert last.returncode == 0
    assert numbers(path) == list(range(total))
    check_files(path)
