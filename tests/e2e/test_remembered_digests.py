"""Digests of large weights are kept beside the runs; a changed byte in the weights is noticed all the same."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from codex_ml.io.atomic import file_digest
from codex_ml.runs.digest_cache import SMALLEST_BYTES

pytestmark = pytest.mark.slow


@pytest.fixture
def large_model(tmp_path: Path, tiny_llama_directory: Path) -> Path:
    """Return the tiny llama with a further file of weights (mostly a hole) that is large enough to be remembered."""
    directory = Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))
    header = {"further": {"dtype": "F32", "shape": [SMALLEST_BYTES // 4], "data_offsets": [0, SMALLEST_BYTES]}}
    head = json.dumps(header).encode()
    with (directory / "further.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + SMALLEST_BYTES)
    # Files that changed a moment ago are not remembered, and a copy is such a file.
    time.sleep(2.5)
    return directory


def test_train_remembers_digests_and_resume_notices_a_changed_byte(
    command_line, tmp_path, large_model, small_records
) -> None:
    """The file is private and true; after one byte changed, time restored, the run is not resumed on other weights."""
    settings = [f"model.path={large_model}", f"data.path={small_records}", "training.schedule=constant"]
    trained = command_line.run("train", *settings, "training.max_steps=1", directory=tmp_path)
    assert trained.returncode == 0, trained.stderr
    file = tmp_path / "runs" / ".digests.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    weights = large_model / "further.safetensors"
    entries = json.loads(file.read_text())["digests"]
    assert {key: entry["digest"] for key, entry in entries.items()} == {
        os.path.relpath(weights, tmp_path / "runs"): file_digest(weights)
    }
    listed = command_line.run("runs", "list", "--json", directory=tmp_path)
    assert len(json.loads(listed.stdout)) == 1

    before = weights.stat()
    with weights.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"x")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    resumed = command_line.run(
        "train", *settings, "training.max_steps=2", "--resume-from", "latest", directory=tmp_path
    )
    assert resumed.returncode == 2, resumed.stderr
    assert "base_model_digest" in resumed.stderr
