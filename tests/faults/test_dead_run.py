"""A run whose process died unexpectedly is closed by the next command that meets it, and goes on where it stood."""

from __future__ import annotations

import json
import shutil

import pytest

from codex_ml.errors import CheckpointError, UserError
from codex_ml.runs.lock import hold_lock

pytestmark = pytest.mark.slow


def set_status(run, status: str, **values: str) -> None:
    """Write a status into run.json, as a process that was killed would have left it."""
    record = run.record() | {"status": status, "ended": None, **values}
    (run.directory / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_resume_of_run_that_died_after_its_last_step_closes_it_properly(train_here):
    """Killed between the last checkpoint and the end: the resume trains nothing, writes the account and finishes."""
    run = train_here()
    weights = run.weights()
    set_status(run, "RUNNING")
    account = run.directory / "data_account.json"
    whole = json.loads(account.read_text("utf-8"))
    account.write_text(json.dumps({key: value for key, value in whole.items() if key != "run"}), encoding="utf-8")

    resumed = train_here("run.resume_from=latest")
    assert resumed.directory == run.directory
    assert any("died unexpectedly" in line for line in resumed.said)
    assert resumed.record()["status"] == "FINISHED"
    assert resumed.weights() == weights
    assert json.loads(account.read_text("utf-8")) == whole
    assert [event["closed_as"] for event in resumed.events("previous_process_died")] == ["KILLED"]
    assert [event["previous_status"] for event in resumed.events("run_resumed")] == ["KILLED"]

    again = train_here("run.resume_from=latest")
    assert any("is finished" in line for line in again.said)
    assert len(again.events("run_resumed")) == 1


def test_resume_of_run_that_died_between_checkpoint_and_pointers_makes_them_true(train_here):
    """Killed right after the last checkpoint: `best` and `latest` name it, and retention is made up for."""
    run = train_here("training.save_steps=2", "training.eval_steps=2", "training.keep_last=1")
    checkpoints = run.directory / "checkpoints"
    shutil.copytree(checkpoints / "step-00000004", checkpoints / "step-00000001")
    for pointer in ("latest", "best"):
        (checkpoints / pointer).write_text("step-00000001\n", encoding="utf-8")
    set_status(run, "RUNNING")
    train_here("run.resume_from=latest", "training.save_steps=2", "training.eval_steps=2", "training.keep_last=1")
    assert [(checkpoints / pointer).read_text("utf-8") for pointer in ("latest", "best")] == ["step-00000004\n"] * 2
    assert not (checkpoints / "step-00000001").exists()


def test_resume_of_run_that_died_before_its_run_manifest_writes_it(train_here):
    """Killed between the last two files: the record says FINISHED, and the manifest is still made."""
    run = train_here()
    (run.directory / "run_manifest.json").unlink()
    resumed = train_here("run.resume_from=latest")
    assert resumed.record()["status"] == "FINISHED"
    assert (run.directory / "run_manifest.json").is_file()
    assert any("is finished" in line for line in train_here("run.resume_from=latest").said)


def test_resume_that_is_refused_still_closes_the_dead_run(train_here):
    """With other settings the checkpoint is refused; the record says KILLED nevertheless, and its last sign of life."""
    run = train_here()
    set_status(run, "RUNNING")
    with pytest.raises(CheckpointError, match="other settings"):
        train_here("run.resume_from=latest", "adapter.r=4")
    assert run.record()["status"] == "KILLED"
    assert run.record()["last_sign_of_life"] is not None
    assert len(run.events("previous_process_died")) == 1


def test_resume_after_a_list_that_closed_the_run_goes_on(train_here):
    """`runs list` came first and closed the run as KILLED: the resume goes on, and forgets that it was found dead."""
    run = train_here("training.save_steps=2")
    set_status(run, "KILLED", found_dead="2026-01-01T00:00:00Z", last_sign_of_life="2026-01-01T00:00:00Z")
    resumed = train_here("run.resume_from=latest", "training.max_steps=6", "training.save_steps=2")
    record = resumed.record()
    assert record["status"] == "FINISHED"
    assert record["found_dead"] is None
    assert record["last_sign_of_life"] is None
    assert (run.directory / "checkpoints" / "step-00000006").is_dir()


def test_resume_of_run_in_progress_is_refused_at_once(train_here):
    """While another process holds the lock nothing is read or loaded, and nothing is written."""
    run = train_here()
    set_status(run, "RUNNING")
    with hold_lock(run.directory / "run.lock"), pytest.raises(UserError, match="in progress in another process"):
        train_here("run.resume_from=latest")
    assert run.record()["status"] == "RUNNING"
