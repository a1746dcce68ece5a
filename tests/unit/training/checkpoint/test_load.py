"""A checkpoint is whole or absent, whatever fails and when; retention never deletes the best or the newest."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import (
    checkpoint_name,
    list_checkpoints,
    newest_whole,
    read_pointer,
    remove_staged,
)
from codex_ml.runs.layout import TRAINER_STATE_NAME
from codex_ml.runs.lock import hold_checkpoint
from codex_ml.runs.manifest import verify_checkpoint, write_manifest
from codex_ml.training.checkpoint.load import (
    CheckpointContent,
    load_checkpoint,
    point_and_prune,
    rank_by_validation,
    save_checkpoint,
)
from codex_ml.training.checkpoint.state import TrainerState


class FailingStorage(Storage):
    """Fails at its n-th operation and at every later one, like a disk that went away."""

    def __init__(self, fails_at: int) -> None:
        self.fails_at = fails_at
        self.count = 0

    def _operate(self) -> None:
        self.count += 1
        if self.count >= self.fails_at:
            raise OSError(5, "Input/output error")

    def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        """Write half of the data, then fail."""
        try:
            self._operate()
        except OSError:
            data = b"".join(pieces)
            path.write_bytes(data[: len(data) // 2])
            raise
        super().write_pieces(path, pieces)

    def fsync_file(self, path: Path) -> None:
        """Fail or sync."""
        self._operate()
        super().fsync_file(path)

    def replace(self, source: Path, target: Path) -> None:
        """Fail or rename."""
        self._operate()
        super().replace(source, target)

    def make_directory(self, path: Path) -> None:
        """Fail or make."""
        self._operate()
        super().make_directory(path)

    def remove_tree(self, path: Path) -> None:
        """Delete the first file only and fail, or delete all."""
        try:
            self._operate()
        except OSError:
            next(file for file in sorted(path.rglob("*")) if file.is_file()).unlink()
            raise
        super().remove_tree(path)


def content(step: int, word: str = "weights", losses: dict[int, float] | None = None) -> CheckpointContent:
    """Return a small checkpoint with a directory of its own inside."""

    def write_weights(directory: Path) -> None:
        (directory / "adapter_model.safetensors").write_text(f"{word} {step}")
        (directory / "templates").mkdir()
        (directory / "templates" / "tool.jinja").write_text("{{ x }}")

    return CheckpointContent(
        state=TrainerState(step=step, validation_losses=losses or {}),
        tensors={"optimizer.a|exp_avg": torch.full((2,), float(step))},
        values={"random": {"python": [3, [1, 2], None]}, "fingerprint": {"seed": 0}},
        write_weights=write_weights,
        manifest={"kind": "adapter"},
    )


def word_of(directory: Path) -> str:
    """Return which content a whole checkpoint holds."""
    verify_checkpoint(directory)
    return (directory / "adapter_model.safetensors").read_text()


def steps_there(checkpoints: Path) -> list[int]:
    """Return the steps that have a checkpoint."""
    return [step for step, _ in list_checkpoints(checkpoints)]


def count_operations(work: Callable[[Storage], object]) -> int:
    """Return how many storage operations a piece of work makes."""
    storage = FailingStorage(fails_at=10**9)
    work(storage)
    return storage.count


def test_save_checkpoint_then_load_gives_everything_back(tmp_path: Path) -> None:
    """State, tensors, values and manifest survive; nothing staged is left; files are private."""
    directory = save_checkpoint(tmp_path, content(7, losses={7: 0.5}), Storage())
    assert directory == tmp_path / "step-00000007"
    loaded = load_checkpoint(directory)
    assert loaded.directory == directory
    assert loaded.state == TrainerState(step=7, validation_losses={7: 0.5})
    assert torch.equal(loaded.tensors["optimizer.a|exp_avg"], torch.tensor([7.0, 7.0]))
    assert loaded.values == {"random": {"python": [3, [1, 2], None]}, "fingerprint": {"seed": 0}}
    assert (loaded.manifest["step"], loaded.manifest["kind"]) == (7, "adapter")
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000007"]
    modes = {stat.S_IMODE(file.stat().st_mode) for file in directory.rglob("*") if file.is_file()}
    assert modes == {0o600}


def test_save_checkpoint_over_existing_step_replaces_it_whole(tmp_path: Path) -> None:
    """A step that is reached again is replaced, never merged."""
    directory = save_checkpoint(tmp_path, content(7, "old"), Storage())
    (directory / "stray.json").write_text("{}")
    assert word_of(save_checkpoint(tmp_path, content(7, "new"), Storage())) == "new 7"
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000007"]


def test_save_checkpoint_leftover_of_same_process_is_replaced(tmp_path: Path) -> None:
    """A torso of an earlier failed save does not leak into the next."""
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(tmp_path, content(7, "old"), FailingStorage(4))
    assert word_of(save_checkpoint(tmp_path, content(7, "new"), Storage())) == "new 7"


@pytest.mark.parametrize("replaces", [False, True])
def test_save_checkpoint_storage_fails_at_any_operation_leaves_whole_or_absent(replaces: bool, tmp_path: Path) -> None:
    """For every operation that may fail: each checkpoint there is whole, and an earlier good one is found."""

    def prepared(name: str) -> Path:
        checkpoints = tmp_path / name
        checkpoints.mkdir()
        save_checkpoint(checkpoints, content(5, "early"), Storage())
        if replaces:
            save_checkpoint(checkpoints, content(7, "old"), Storage())
        return checkpoints

    total = count_operations(lambda storage: save_checkpoint(prepared("count"), content(7, "new"), storage))
    assert total >= 9
    for fails_at in range(1, total + 1):
        checkpoints = prepared(f"fails-at-{fails_at}")
        with pytest.raises(OSError, match="Input/output"):
            save_checkpoint(checkpoints, content(7, "new"), FailingStorage(fails_at))
        words = {step: word_of(directory) for step, directory in list_checkpoints(checkpoints)}
        assert words.pop(5) == "early 5"
        assert words in ({}, {7: "old 7"}, {7: "new 7"})
        assert newest_whole(checkpoints)[1] == []
        # The next start clears the rest away and can save.
        remove_staged(checkpoints, Storage())
        assert word_of(save_checkpoint(checkpoints, content(7, "again"), Storage())) == "again 7"
        assert steps_there(checkpoints) == [5, 7]


def test_save_checkpoint_that_does_not_read_back_is_an_error(tmp_path: Path) -> None:
    """What the disk changed is found before an older checkpoint is let go."""

    class Rotting(Storage):
        def replace(self, source: Path, target: Path) -> None:
            super().replace(source, target)
            (target / "adapter_model.safetensors").write_text("rotten")

    with pytest.raises(CheckpointError, match="fails its verification"):
        save_checkpoint(tmp_path, content(7), Rotting())


def test_save_checkpoint_manifest_is_written_after_every_sync(tmp_path: Path) -> None:
    """The new directory's name, libraries' files, own files, the manifest, the directory, the rename, the parent."""

    class Recording(Storage):
        def __init__(self) -> None:
            self.log: list[str] = []

        def write_pieces(self, path: Path, pieces: Iterable[bytes | memoryview]) -> None:
            self.log.append(f"write {path.name}")
            super().write_pieces(path, pieces)

        def fsync_file(self, path: Path) -> None:
            self.log.append("sync " + ("directory" if path.name.startswith(".staging") else path.name))
            super().fsync_file(path)

        def replace(self, source: Path, target: Path) -> None:
            self.log.append(f"rename to {target.name}")
            super().replace(source, target)

    storage = Recording()
    save_checkpoint(tmp_path, content(7), storage)
    assert storage.log == [
        f"sync {tmp_path.name}",
        "sync adapter_model.safetensors",
        "sync templates",
        "sync tool.jinja",
        "write training_state.safetensors",
        "write trainer_state.json",
        "write manifest.json",
        "sync directory",
        "rename to step-00000007",
        f"sync {tmp_path.name}",
    ]


def test_remove_staged_checkpoint_whose_successor_did_not_arrive_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames of a replacement: the earlier checkpoint of that step is not lost."""

    class DiesBetween(Storage):
        renames = 0

        def replace(self, source: Path, target: Path) -> None:
            self.renames += 1
            if self.renames == 2:
                raise OSError(5, "Input/output error")
            super().replace(source, target)

    save_checkpoint(tmp_path, content(7, "old"), Storage())
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(tmp_path, content(7, "new"), DiesBetween())
    assert steps_there(tmp_path) == []
    assert len(remove_staged(tmp_path, Storage())) == 2
    assert word_of(tmp_path / checkpoint_name(7)) == "old 7"
    assert [entry.name for entry in tmp_path.iterdir()] == [checkpoint_name(7)]


def test_load_checkpoint_without_training_state_says_so(tmp_path: Path) -> None:
    """An exported adapter can be evaluated, not resumed."""
    directory = tmp_path / checkpoint_name(1)
    directory.mkdir()
    (directory / "adapter_model.safetensors").write_text("x")
    write_manifest(directory, {"step": 1}, Storage())
    with pytest.raises(CheckpointError, match="holds no training state"):
        load_checkpoint(directory)
    (directory / TRAINER_STATE_NAME).write_text("{}")
    write_manifest(directory, {"step": 1}, Storage())
    with pytest.raises(CheckpointError, match="holds no training state"):
        load_checkpoint(directory)


def test_load_checkpoint_damaged_is_refused(tmp_path: Path) -> None:
    """Nothing of a checkpoint is read before all of it is verified."""
    directory = save_checkpoint(tmp_path, content(1), Storage())
    (directory / TRAINER_STATE_NAME).write_text("{}")
    with pytest.raises(CheckpointError, match="fails its verification"):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "losses", "kept", "best"),
    [
        (2, 1, {}, [5, 6], 6),
        (1, 1, {}, [6], 6),
        (1, 1, {2: 0.1, 4: 0.5, 6: 0.3}, [2, 6], 2),
        (1, 2, {2: 0.1, 4: 0.5, 6: 0.3}, [2, 6], 2),
        (2, 2, {2: 0.1, 4: 0.2, 6: 0.3}, [2, 4, 5, 6], 2),
        (1, 0, {3: 0.1}, [3, 6], 3),
        (6, 1, {}, [1, 2, 3, 4, 5, 6], 6),
        (1, 1, {2: 0.1, 4: 0.1}, [2, 6], 2),
    ],
)
def test_point_and_prune_retention_keeps_newest_and_best(
    keep_last: int, keep_best: int, losses: dict[int, float], kept: list[int], best: int, tmp_path: Path
) -> None:
    """The newest so many and the best so many stay; the best and the one just written always."""
    for step in range(1, 7):
        save_checkpoint(tmp_path, content(step), Storage())
    state = TrainerState(step=6, validation_losses=losses)
    removed = point_and_prune(tmp_path, state, keep_last, keep_best, Storage())
    assert steps_there(tmp_path) == kept
    assert removed == sorted(set(range(1, 7)) - set(kept))
    assert read_pointer(tmp_path, "latest") == tmp_path / checkpoint_name(6)
    assert read_pointer(tmp_path, "best") == tmp_path / checkpoint_name(best)
    assert all(not entry.name.startswith(".") for entry in tmp_path.iterdir())


def test_point_and_prune_checkpoint_that_is_read_stays_until_the_next_call(tmp_path: Path) -> None:
    """An evaluation holds a checkpoint while it reads it; retention does not delete a held checkpoint."""
    for step in (1, 2, 3):
        (tmp_path / checkpoint_name(step)).mkdir()
    hold = hold_checkpoint(tmp_path / checkpoint_name(1))
    assert hold is not None
    assert point_and_prune(tmp_path, TrainerState(step=3), 1, 0, Storage()) == [2]
    hold.release()
    assert point_and_prune(tmp_path, TrainerState(step=3), 1, 0, Storage()) == [1]
    assert hold_checkpoint(tmp_path / checkpoint_name(1)) is None


def test_point_and_prune_order_is_by_number(tmp_path: Path) -> None:
    """With nine digits the name alone would sort wrongly."""
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, content(step), Storage())
    assert point_and_prune(tmp_path, TrainerState(step=100_000_000), 1, 0, Storage()) == [99_999_999]


def test_point_and_prune_best_evaluated_step_without_checkpoint_is_not_pointed_to(tmp_path: Path) -> None:
    """`best` names a checkpoint that exists."""
    for step in (2, 4):
        save_checkpoint(tmp_path, content(step), Storage())
    point_and_prune(tmp_path, TrainerState(step=4, validation_losses={1: 0.1, 2: 0.4, 4: 0.5}), 1, 1, Storage())
    assert read_pointer(tmp_path, "best") == tmp_path / checkpoint_name(2)


def test_point_and_prune_state_without_checkpoint_does_nothing(tmp_path: Path) -> None:
    """No pointer names what is not there, and nothing is let go for it."""
    for step in (2, 4):
        save_checkpoint(tmp_path, content(step), Storage())
    assert point_and_prune(tmp_path, TrainerState(step=5), 1, 0, Storage()) == []
    assert steps_there(tmp_path) == [2, 4]
    assert read_pointer(tmp_path, "latest") is None


def test_point_and_prune_steps_of_a_given_up_future_go(tmp_path: Path) -> None:
    """After a resume from an older checkpoint the newer ones belong to another course."""
    for step in (2, 3, 9):
        save_checkpoint(tmp_path, content(step), Storage())
    assert point_and_prune(tmp_path, TrainerState(step=3), 2, 1, Storage()) == [9]
    assert steps_there(tmp_path) == [2, 3]


def test_point_and_prune_storage_fails_at_any_operation_keeps_best_and_newest(tmp_path: Path) -> None:
    """Whatever fails, the best and the newest stay whole and no torso bears a checkpoint's name."""
    state = TrainerState(step=4, validation_losses={1: 0.1, 2: 0.2, 4: 0.3})

    def prepared(name: str) -> Path:
        for step in range(1, 5):
            save_checkpoint(tmp_path / name, content(step), Storage())
        return tmp_path / name

    total = count_operations(lambda storage: point_and_prune(prepared("count"), state, 1, 1, storage))
    for fails_at in range(1, total + 1):
        checkpoints = prepared(f"fails-at-{fails_at}")
        with pytest.raises(OSError, match="Input/output"):
            point_and_prune(checkpoints, state, 1, 1, FailingStorage(fails_at))
        words = {step: word_of(directory) for step, directory in list_checkpoints(checkpoints)}
        assert (words[1], words[4]) == ("weights 1", "weights 4")
        remove_staged(checkpoints, Storage())
        point_and_prune(checkpoints, state, 1, 1, Storage())
        assert steps_there(checkpoints) == [1, 4]


def test_rank_by_validation_lowest_first_earlier_among_equals() -> None:
    """Only steps that were evaluated and exist are ranked."""
    assert rank_by_validation([1, 2, 3, 4], {1: 0.5, 2: 0.3, 3: 0.3, 9: 0.0}) == [2, 3, 1]
