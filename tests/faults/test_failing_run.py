"""Runs that fail at work: what is said, what is kept, and that the first error is the one that is shown."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.errors import (
    CodexError,
    DiskSpaceError,
    MemoryShortageError,
    NonFiniteError,
    RunDirectoryError,
    RunDirectoryGoneError,
)
from codex_ml.io.atomic import Storage
from codex_ml.recipes.train.resume import find_resume_point
from codex_ml.runs.layout import find_runs
from codex_ml.runs.manifest import verify_checkpoint

pytestmark = pytest.mark.slow

SETTINGS = ("training.save_steps=1", "training.logging_steps=1")


class FailingStorage(Storage):
    """Raises when a file of a name is written the n-th time, and ever after."""

    def __init__(self, name: str, error: BaseException, occurrence: int = 1) -> None:
        self._faults = [(name, error, occurrence)]
        self._seen: Counter[str] = Counter()

    def fails_too(self, name: str, error: BaseException, occurrence: int) -> FailingStorage:
        """Add another fault."""
        self._faults.append((name, error, occurrence))
        return self

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write, or raise."""
        for name, error, occurrence in self._faults:
            # An atomic write begins with a file named after its target.
            if name in path.name:
                self._seen[name] += 1
                if self._seen[name] >= occurrence:
                    raise error
        super().write_pieces(path, pieces)


@pytest.fixture
def poisoned(tiny_llama_directory, tiny_tokenizer, tmp_path) -> list[str]:
    """Return settings of a base that is not finite for the tokens of one sign, which stands in one record of forty."""
    rows = [{"prompt": f"What is {number}? ", "completion": "A number."} for number in range(40)]
    rows[25]["completion"] = "A number \u00a7."
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    directory = Path(shutil.copytree(tiny_llama_directory, tmp_path / "poisoned"))
    (file,) = directory.glob("*.safetensors")
    tensors = load_file(file)
    rare = tiny_tokenizer("\u00a7", add_special_tokens=False)["input_ids"]
    # Loading refuses weights that are not finite. Here only the rare token has a nonzero last dimension, and the first
    # layer scales that dimension beyond the range of float32.
    for name, tensor in tensors.items():
        if "embed_tokens" in name:
            tensor[:, -1] = 0.0
            tensor[rare] = 0.0
            tensor[rare, -1] = 1.0
        elif "o_proj" in name or "down_proj" in name:
            tensor[-1] = 0.0
        elif "layers.0.mlp.gate_proj" in name or "layers.0.mlp.up_proj" in name:
            tensor[:, -1] = 1e25
    save_file(tensors, file, metadata={"format": "pt"})
    settings = ["data.split.ratios=[1.0,0.0,0.0]", "adapter.target_modules=[q_proj,v_proj]"]
    return [f"model.path={directory}", f"data.path={data}", *settings]


def test_loss_that_is_not_finite_stops_before_the_step_and_names_records_and_checkpoint(train_here, poisoned):
    """One record of forty is poison: its step is not made, its window is named, the checkpoint before is whole."""
    with pytest.raises(NonFiniteError, match="the loss is not finite") as failed:
        train_here(*SETTINGS, *poisoned, "training.micro_batch_size=2", "training.max_steps=20", "run.seed=1")
    run = train_here.only_run()
    step = int(failed.value.what.split(":")[0].removeprefix("step "))
    assert step > 1, "the seed should bring the poisoned record later"
    assert "records.jsonl:26" in failed.value.why
    assert failed.value.why.count("records.jsonl:") == 2
    assert "the optimizer step was not made" in failed.value.why
    assert failed.value.exit_code == 1
    (note,) = failed.value.__notes__
    assert note == f"kept: the last good checkpoint is step {step - 1} (step-{step - 1:08d}, verified)"
    verify_checkpoint(run.directory / "checkpoints" / f"step-{step - 1:08d}")
    assert not (run.directory / "checkpoints" / f"step-{step:08d}").exists()
    assert run.record()["status"] == "FAILED"


def test_second_error_while_closing_does_not_hide_the_first(train_here):
    """The run dies of one thing, its account of another: both are shown, the first as the error."""
    storage = FailingStorage("data_account.json", OSError(errno.EIO, "Input/output error"), occurrence=2)
    with pytest.raises(CodexError) as failed:
        train_here(*SETTINGS, "training.learning_rate=1e6", "training.max_steps=50", storage=storage)
    assert "gradient" in failed.value.what or "loss" in failed.value.what
    notes = failed.value.__notes__
    assert [note for note in notes if note == "also: data_account.json could not be written: Input/output error"]
    assert [note for note in notes if note.startswith("kept: ")]
    run = train_here.only_run()
    assert run.record()["status"] == "FAILED"
    assert "gradient" in run.events("run_stopped")[0]["message"] or "loss" in run.events("run_stopped")[0]["message"]


def test_record_that_cannot_be_closed_does_not_hide_the_first_error(train_here):
    """The disk fails altogether: the first error is shown, and a later look finds the run dead, not at work."""
    storage = FailingStorage("manifest.json", OSError(errno.EIO, "Input/output error"), occurrence=2)
    storage.fails_too("run.json", OSError(errno.EIO, "Input/output error"), occurrence=3)
    with pytest.raises(RunDirectoryError, match="cannot be read or written any more") as failed:
        train_here(*SETTINGS, storage=storage)
    assert [note for note in failed.value.__notes__ if note.startswith("also: run.json could not be written")]
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert resumed.record()["status"] == "FINISHED"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "python", "torch on the cpu"],
)
def test_out_of_memory_is_said_with_the_figures_of_the_plan_and_three_settings(train_here, error):
    """Whichever allocator failed: the step, the plan's estimate, and three settings with values, in order."""
    with pytest.raises(MemoryShortageError, match="out of memory on cpu in step") as failed:
        train_here(*SETTINGS, storage=FailingStorage("training_state", error, occurrence=2))
    assert "the plan estimated" in failed.value.why
    assert "training.micro_batch_size=8" in failed.value.why
    places = [failed.value.fix.index(f"{number}. ") for number in (1, 2, 3)]
    assert places == sorted(places)
    assert "training.micro_batch_size=4 training.gradient_accumulation_steps=2" in failed.value.fix
    assert failed.value.exit_code == 1
    assert [note for note in failed.value.__notes__ if "the last good checkpoint is step 1 " in note]
    assert train_here.only_run().record()["status"] == "FAILED"


@pytest.mark.parametrize("moved", [True, False], ids=["moved away", "removed"])
def test_run_directory_taken_away_stops_the_run_and_is_not_made_again(train_here, tmp_path, moved):
    """Nothing is written to where it was: no half run, no second one, and what is lost is said."""

    class Taking(Storage):
        def replace(self, source: Path, target: Path) -> None:
            super().replace(source, target)
            if target.name == "latest":
                run = target.parents[1]
                run.rename(tmp_path / "away")
                if not moved:
                    shutil.rmtree(tmp_path / "away")

    with pytest.raises(RunDirectoryGoneError, match="removed or moved during the run") as failed:
        train_here(*SETTINGS, storage=Taking())
    assert failed.value.exit_code == 1
    assert any("went with the directory" in note for note in failed.value.__notes__)
    assert list((tmp_path / "runs").glob("*-run")) == []
    if moved:
        verify_checkpoint(tmp_path / "away" / "checkpoints" / "step-00000001")


def test_run_directory_taken_away_between_two_checkpoints_is_noticed_at_the_next_step(train_here, tmp_path):
    """An open log swallows its lines without an error; the run must not go on for hours like that."""

    class TakingAtTheFirstLine(Storage):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            written = super().write(descriptor, data)
            if b'"step": 1,' in bytes(data):
                for run in (tmp_path / "runs").glob("*-run"):
                    run.rename(tmp_path / "away")
            return written

    with pytest.raises(RunDirectoryGoneError) as failed:
        train_here("training.max_steps=30", "training.logging_steps=1", storage=TakingAtTheFirstLine())
    (note,) = failed.value.__notes__
    assert "all 2 steps" in note


def test_read_only_directory_during_the_run_stops_it_with_the_last_good_checkpoint(train_here):
    """What the kernel says of a disk that it remounted after an error."""
    storage = FailingStorage("training_state", OSError(errno.EROFS, "Read-only file system"), occurrence=3)
    with pytest.raises(RunDirectoryError, match="cannot be read or written any more") as failed:
        train_here(*SETTINGS, storage=storage)
    assert failed.value.why == "Read-only file system"
    assert any("the last good checkpoint is step 2 " in note for note in failed.value.__notes__)


def test_disk_full_while_a_run_is_made_leaves_no_directory_behind(train_here, tmp_path):
    """Without its record it would be no run, only something to stumble over."""
    storage = FailingStorage("run.json", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        train_here(*SETTINGS, storage=storage)
    assert list((tmp_path / "runs").glob("*-run")) == []


def test_disk_full_at_the_very_end_is_no_success(train_here):
    """The last checkpoint is whole, but the run cannot say that it ended: an error, and the resume finishes it."""
    storage = FailingStorage("data_account.json", OSError(errno.ENOSPC, "No space left on device"), occurrence=2)
    with pytest.raises(DiskSpaceError, match=r"disk is full: .*data_account.json") as failed:
        train_here(*SETTINGS, storage=storage)
    assert any("the last good checkpoint is step 4 " in note for note in failed.value.__notes__)
    resumed = train_here(*SETTINGS, "run.resume_from=latest")
    assert resumed.record()["status"] == "FINISHED"


def clock_back(start: datetime) -> Iterator[datetime]:
    """Yield moments that go back by an hour each."""
    while True:
        yield start
        start -= timedelta(hours=1)


def test_clock_going_backwards_changes_no_result_and_no_order_of_steps(train_here, trainer_in, tmp_path_factory):
    """Every look at the clock is an hour earlier: same bytes, steps in order, files rotated by number."""
    expected = trainer_in(tmp_path_factory.mktemp("straight"))(*SETTINGS)
    moments = clock_back(datetime(2026, 11, 22, 12, tzinfo=UTC))
    run = train_here(*SETTINGS, "logging.max_bytes=4096", clock=lambda: next(moments))
    assert run.weights() == expected.weights()
    assert run.record()["status"] == "FINISHED"
    files = sorted(run.directory.glob("metrics.ndjson*"), key=lambda file: (not file.suffix[1:].isdigit(), file.name))
    steps = [json.loads(line)["step"] for file in files for line in file.read_text("utf-8").split("\n") if line]
    assert steps == sorted(steps)
    assert len(files) > 1
    resumed = train_here(*SETTINGS, "run.resume_from=latest", "training.max_steps=4", clock=lambda: next(moments))
    assert resumed.directory == run.directory


def test_clock_set_back_between_two_runs_latest_is_the_one_with_the_later_recorded_start(train_here, tmp_path):
    """The recorded start decides, as documented; the list keeps to the same order, and both runs stay apart."""
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    first = train_here(clock=lambda: noon)
    second = train_here(clock=lambda: noon - timedelta(hours=3))
    same_second = train_here(clock=lambda: noon)
    assert len({first.directory, second.directory, same_second.directory}) == 3
    order = [layout.directory for layout, _ in find_runs(tmp_path / "runs", "run")]
    assert order[-1] == second.directory
    assert find_resume_point("latest", tmp_path / "runs", "run").layout.directory == order[0] == same_second.directory
