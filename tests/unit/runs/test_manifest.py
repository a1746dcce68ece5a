"""The manifest finds every fault of a checkpoint before anything of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.runs.manifest import MANIFEST_NAME, PICKLE_SUFFIXES, read_manifest, verify_checkpoint, write_manifest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a small whole checkpoint with a file in a directory of its own."""
    directory = tmp_path / "step-00000001"
    (directory / "templates").mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (directory / "trainer_state.json").write_text("{}")
    (directory / "templates" / "tool.jinja").write_text("{{ x }}")
    write_manifest(directory, {"step": 1, "kind": "adapter"}, Storage())
    return directory


def change_manifest(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Alter the manifest in place."""
    manifest = json.loads((directory / MANIFEST_NAME).read_text())
    change(manifest)
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_verify_checkpoint_untouched_returns_manifest(checkpoint: Path) -> None:
    """Every file is listed with digest and size, at every depth; details stand beside them."""
    manifest = verify_checkpoint(checkpoint)
    assert (manifest["step"], manifest["kind"], manifest["manifest_version"]) == (1, "adapter", 1)
    assert sorted(manifest["files"]) == ["adapter_model.safetensors", "templates/tool.jinja", "trainer_state.json"]
    assert manifest["files"]["adapter_model.safetensors"] == {
        "sha256": file_digest(checkpoint / "adapter_model.safetensors"),
        "bytes": 700,
    }


def test_verify_checkpoint_moved_elsewhere_is_still_whole(checkpoint: Path, tmp_path: Path) -> None:
    """Nothing in a manifest depends on where the checkpoint lies."""
    assert verify_checkpoint(checkpoint.rename(tmp_path / "moved"))["step"] == 1


@pytest.mark.parametrize("offset", [0, 350, 699])
def test_verify_checkpoint_one_changed_byte_is_named(checkpoint: Path, offset: int) -> None:
    """A single flipped bit anywhere in a file is found."""
    path = checkpoint / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert caught.value.why == "adapter_model.safetensors differs from its checksum"


def test_verify_checkpoint_missing_and_extra_files_are_all_named(checkpoint: Path) -> None:
    """All faults are shown at once."""
    (checkpoint / "trainer_state.json").unlink()
    (checkpoint / "templates" / "tool.jinja").unlink()
    (checkpoint / "extra.json").write_text("{}")
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert caught.value.why == (
        "templates/tool.jinja is missing; trainer_state.json is missing; extra.json is not in the manifest"
    )


@pytest.mark.parametrize("suffix", PICKLE_SUFFIXES)
def test_verify_checkpoint_pickle_is_refused_even_when_listed(checkpoint: Path, suffix: str) -> None:
    """A checksum makes a pickle no safer."""
    (checkpoint / f"optimizer{suffix}").write_bytes(b"x")
    write_manifest(checkpoint, {"step": 1}, Storage())
    with pytest.raises(CheckpointError, match="fails its verification") as caught:
        verify_checkpoint(checkpoint)
    assert caught.value.why == f"optimizer{suffix} is a pickle format, which is never read"


def test_verify_checkpoint_directory_in_place_of_file_is_a_fault(checkpoint: Path) -> None:
    """A name that is no file counts as missing, without a traceback."""
    (checkpoint / "trainer_state.json").unlink()
    (checkpoint / "trainer_state.json").mkdir()
    with pytest.raises(CheckpointError, match="verification"):
        verify_checkpoint(checkpoint)


def test_verify_checkpoint_dangling_link_is_a_fault(checkpoint: Path) -> None:
    """A link is a fault of the checkpoint, so that an older one can be chosen; where it leads to plays no part."""
    (checkpoint / "trainer_state.json").unlink()
    (checkpoint / "trainer_state.json").symlink_to("nowhere")
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert "trainer_state.json is a symbolic link" in caught.value.why


def test_verify_checkpoint_entry_without_checksum_is_a_fault(checkpoint: Path) -> None:
    """An entry that is no object, or has no digest, proves nothing."""
    change_manifest(checkpoint, lambda manifest: manifest["files"].update({"trainer_state.json": 5}))
    with pytest.raises(CheckpointError, match="verification"):
        verify_checkpoint(checkpoint)
    change_manifest(checkpoint, lambda manifest: manifest["files"].update({"trainer_state.json": {}}))
    with pytest.raises(CheckpointError, match="verification"):
        verify_checkpoint(checkpoint)


def test_verify_checkpoint_name_outside_directory_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A manifest cannot make anything outside its directory part of a checkpoint."""
    (tmp_path / "outside").write_text("x")
    entry = {"sha256": file_digest(tmp_path / "outside"), "bytes": 1}
    change_manifest(checkpoint, lambda manifest: manifest["files"].update({"../outside": entry}))
    with pytest.raises(CheckpointError) as caught:
        verify_checkpoint(checkpoint)
    assert caught.value.why == "'../outside' is no relative path below it"


def test_read_manifest_absent_says_not_whole(tmp_path: Path) -> None:
    """The manifest is written last: without it the checkpoint never became whole."""
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifest_version": 1}', b'{"files": []}', b"\xff\xfe"])
def test_read_manifest_damaged_says_so(content: bytes, tmp_path: Path) -> None:
    """A torn or foreign manifest is a damaged one."""
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_manifest(tmp_path)


def test_read_manifest_other_version_is_refused(checkpoint: Path) -> None:
    """A format of the future is not guessed at."""
    change_manifest(checkpoint, lambda manifest: manifest.update({"manifest_version": 2}))
    with pytest.raises(CheckpointError, match="has version 2"):
        read_manifest(checkpoint)
