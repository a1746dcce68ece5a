"""Changed, cut or missing bytes in what a run is resumed from: refused or passed over, and said; never believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError, ModelError, UserError
from codex_ml.io.atomic import file_digest
from codex_ml.recipes.train.resume import find_resume_point
from codex_ml.recipes.verify.run import verify_run
from codex_ml.runs.layout import RunLayout

pytestmark = pytest.mark.slow

SETTINGS = ("training.save_steps=2",)


@pytest.fixture(scope="module")
def whole(trainer_in, tmp_path_factory):
    """Return a run with checkpoints at steps 2 and 4; treat it as read-only."""
    return trainer_in(tmp_path_factory.mktemp("whole"))(*SETTINGS)


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """Return a copy of that run below the directory of the test."""
    return Path(shutil.copytree(whole.directory, tmp_path / "runs" / whole.directory.name))


def flip(file: Path, position: int) -> None:
    """Change one byte of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def test_byte_flipped_in_each_file_of_the_newest_checkpoint_the_older_one_is_used_and_said(copied):
    """Whatever file it is, and wherever in it: the checkpoint is passed over by name, with the file that differs."""
    newest = copied / "checkpoints" / "step-00000004"
    files = sorted(file for file in newest.rglob("*") if file.is_file())
    assert {"adapter_model.safetensors", "adapter_config.json", "trainer_state.json", "training_state.safetensors"} <= {
        file.name for file in files
    }
    for file in files:
        before = file.read_bytes()
        for position in sorted({0, len(before) // 2, len(before) - 2} & set(range(len(before)))):
            flip(file, position)
            point = find_resume_point("latest", copied.parent, "run")
            assert point.checkpoint == copied / "checkpoints" / "step-00000002", file.name
            (passed,) = point.passed_over
            assert passed.directory == newest
            assert file.name in passed.reason or file.name == "manifest.json"
            file.write_bytes(before)
    assert find_resume_point("latest", copied.parent, "run").checkpoint == newest


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer_state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "missing"])
def test_file_of_the_newest_checkpoint_cut_or_missing_is_passed_over(copied, name, damage):
    """A file that lost its end, its content or itself."""
    file = copied / "checkpoints" / "step-00000004" / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: -1 if damage == "cut" else 0])
    if name == "manifest.json" and damage == "cut":
        # Its last byte is a newline, which says nothing.
        file.write_bytes(file.read_bytes()[:-1])
    point = find_resume_point(copied, copied.parent, "run")
    assert point.checkpoint == copied / "checkpoints" / "step-00000002"
    assert len(point.passed_over) == 1


def test_resume_past_a_damaged_checkpoint_says_so_and_ends_in_the_same_bytes(train_here, whole, copied):
    """The steps since the older one are made again; the damaged one is set aside, not deleted."""
    flip(copied / "checkpoints" / "step-00000004" / "adapter_model.safetensors", 1000)
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert resumed.directory == copied
    assert resumed.weights() == whole.weights()
    (warning,) = [line for line in resumed.said if "passed over step-00000004" in line]
    assert "adapter_model.safetensors differs from its checksum" in warning
    # The reason comes before what it led to.
    (consequence,) = [line for line in resumed.said if "set aside, not deleted" in line]
    assert resumed.said.index(warning) < resumed.said.index(consequence)
    (event,) = resumed.events("checkpoint_passed_over")
    assert event["checkpoint"] == "step-00000004"
    assert len([name for name in resumed.checkpoints() if name.startswith("abandoned-")]) == 1
    # The run says itself that it was damaged then, so that it stays a run that can be verified and repeated.
    verification = verify_run(RunLayout(resumed.directory), allowed=["code"]).verification
    assert verification.failing() == []
    (noted,) = [check for check in verification.checks if check.key.startswith("checkpoints/abandoned-")]
    assert "was already damaged when it was set aside" in noted.note


def test_every_checkpoint_damaged_is_refused_with_each_reason(train_here, copied):
    """Nothing is left to go on from: refused with what is wrong with each, and nothing is touched."""
    flip(copied / "checkpoints" / "step-00000004" / "trainer_state.json", 30)
    (copied / "checkpoints" / "step-00000002" / "manifest.json").unlink()
    before = (copied / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* passes its verification") as refused:
        train_here(*SETTINGS, "run.resume_from=latest")
    assert "trainer_state.json differs" in refused.value.why
    assert "it has no manifest.json" in refused.value.why
    assert refused.value.exit_code == 2
    assert (copied / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"run_id": 1}', '{"run_id": "a", "name": "run", "started": "never", "status": "RUNNING"}']
)
def test_run_record_damaged_latest_is_refused_instead_of_starting_another(train_here, copied, text):
    """With the record of the newest run unreadable nobody knows what the latest is; no new run begins in silence."""
    (copied / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="which run is the latest is unknown") as refused:
        train_here(*SETTINGS, "run.resume_from=latest")
    assert "run.json" in refused.value.why
    assert [entry.name for entry in copied.parent.iterdir() if entry.is_dir()] == [copied.name]
    with pytest.raises(UserError, match="damaged"):
        train_here(*SETTINGS, f"run.resume_from={copied}")


def test_run_record_missing_of_a_directory_without_work_is_passed_over(train_here, tmp_path):
    """What a process leaves that died before it wrote its record keeps no later run from its work."""
    (tmp_path / "runs" / "20260101T000000Z-run" / "checkpoints").mkdir(parents=True)
    run = train_here("run.resume_from=latest")
    assert any("starting one" in line for line in run.said)
    assert run.record()["status"] == "FINISHED"


@pytest.fixture
def model(tiny_llama_directory, tmp_path) -> Path:
    """Return a copy of the base model that may be damaged."""
    return Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))


@pytest.mark.parametrize("damage", ["cut", "header", "length", "emptied"])
def test_base_weights_damaged_are_refused_before_a_run_exists(train_here, model, tmp_path, damage):
    """Cut short, or with a header that is none: one error that names the model, and no run directory."""
    (file,) = model.glob("*.safetensors")
    content = file.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "header": content[:8] + b"\x00" * 64 + content[72:],
        "length": b"\xff" * 8 + content[8:],
        "emptied": b"",
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(ModelError) as refused:
        train_here(f"model.path={model}")
    assert refused.value.exit_code == 2
    assert "model" in refused.value.what
    assert refused.value.fix
    assert not (tmp_path / "runs").exists()


def test_base_weights_changed_between_two_processes_are_refused_with_both_digests(train_here, model):
    """One byte of the base differs since the run began: another base, so its adapter does not go on there."""
    run = train_here(f"model.path={model}", *SETTINGS)
    (file,) = model.glob("*.safetensors")
    before = json.loads((run.directory / "provenance.json").read_text("utf-8"))["compute"]["base_model_digest"]
    old = file_digest(file)
    flip(file, file.stat().st_size - 1)
    assert file_digest(file) != old
    with pytest.raises(CheckpointError, match="other settings or files") as refused:
        train_here(f"model.path={model}", *SETTINGS, "training.max_steps=6", "run.resume_from=latest")
    assert f"base_model_digest: {before!r} there, 'sha256:" in refused.value.why
    assert refused.value.exit_code == 2
    assert run.record()["status"] == "FINISHED"
    assert run.checkpoints() == ["best", "latest", "step-00000002", "step-00000004"]
