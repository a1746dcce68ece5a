"""What a resume is refused for before it begins, and what it is not: room on the disk, steps that are made already."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.errors import DiskSpaceError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.runs.layout import RunLayout

pytestmark = pytest.mark.slow


class SmallStorage(Storage):
    """Says that so many bytes are free, wherever it is asked."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free_bytes(self, directory: Path) -> int:
        """Return the figure of the test."""
        del directory
        return self._free


@pytest.fixture
def job(tmp_path, tiny_llama_directory, small_records):
    """Return a function that trains with overrides and returns (run directory, all that was said)."""

    def run(*overrides: str, storage: Storage | None = None) -> tuple[Path, str]:
        said: list[str] = []
        values = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.save_steps=2"]
        composed = compose("train", overrides=[*values, *overrides], working_directory=tmp_path, environment={})
        dependencies = TrainDependencies(emit=said.append, storage=storage or Storage())
        outcome = train(validate_train(composed), dependencies)
        assert outcome.directory is not None
        return outcome.directory, "\n".join([*said, *outcome.lines])

    return run


def test_resume_is_asked_only_for_the_room_of_checkpoints_that_are_missing(job):
    """With its checkpoints on the disk, a run goes on with a room that a new run is refused for."""
    run, _ = job("training.max_steps=4", "training.keep_last=8")
    room = SmallStorage(6 * 2**20)
    longer = ("training.max_steps=6", "training.keep_last=8")
    with pytest.raises(DiskSpaceError):
        job(*longer, storage=room)
    job(*longer, f"run.resume_from={run}", storage=room)
    assert (run / "checkpoints/step-00000006").is_dir()
    with pytest.raises(DiskSpaceError, match="besides the 3 that are there"):
        job("training.max_steps=8", "training.keep_last=8", f"run.resume_from={run}", storage=SmallStorage(2**10))


@pytest.mark.parametrize("status", ["FINISHED", "died"])
def test_resume_with_fewer_steps_than_are_made_is_refused(job, status):
    """Steps cannot be taken back: exit 2 with both numbers, nothing written; not a success without a step."""
    run, _ = job("training.max_steps=4")
    if status == "died":
        (run / "run_manifest.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        job("training.max_steps=3", f"run.resume_from={run}")
    assert caught.value.exit_code == 2
    assert "the run is at step 4 already, beyond training.max_steps=3" in caught.value.what
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resume_cut_short_at_its_step_says_that_nothing_is_left_to_do(job):
    """Equal to the step reached is an end; of a learning rate of steps to come nothing is said."""
    run, _ = job("training.max_steps=4", "training.keep_last=8")
    shutil.rmtree(run / "checkpoints/step-00000004")
    RunLayout(run).checkpoints.joinpath("latest").write_text("step-00000002\n")
    (run / "run_manifest.json").unlink()
    _, said = job("training.max_steps=2", f"run.resume_from={run}")
    assert "2 steps instead of 4, and all of them are made" in said
    assert "steps to come" not in said
