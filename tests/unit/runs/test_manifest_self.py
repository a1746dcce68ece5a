"""A manifest vouches for itself: what it says beside the digests of files is checked, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage
from codex_ml.runs.manifest import MANIFEST_NAME, verify_checkpoint, write_manifest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a whole checkpoint of one file."""
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    write_manifest(tmp_path, {"step": 2, "kind": "adapter", "base_model_digest": "sha256:0a"}, Storage())
    return tmp_path


def test_verify_checkpoint_every_byte_of_the_manifest_flipped_is_refused_or_says_the_same(checkpoint: Path) -> None:
    """All but white space between values counts; a flipped bit is never believed."""
    file = checkpoint / MANIFEST_NAME
    whole = file.read_bytes()
    said = verify_checkpoint(checkpoint)
    for position in range(len(whole)):
        for bit in (0, 2, 5):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            file.write_bytes(damaged)
            try:
                found = verify_checkpoint(checkpoint)
            except CheckpointError:
                continue
            assert found == said, (position, bit)


@pytest.mark.parametrize("change", [{"kind": "model"}, {"step": 3}, {"manifest_digest": None}, {"loss": float("nan")}])
def test_verify_checkpoint_manifest_edited_is_refused(checkpoint: Path, change: dict[str, object]) -> None:
    """Also where the digests of all files still agree."""
    file = checkpoint / MANIFEST_NAME
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change))
    with pytest.raises(CheckpointError, match=r"fails its verification|is damaged"):
        verify_checkpoint(checkpoint)
