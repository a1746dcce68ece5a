"""Checkpoint references become verified targets, each once and each with its own name."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import checkpoint_name, resolve_checkpoint
from codex_ml.runs.layout import RunLayout, create_run
from codex_ml.runs.listing import find_checkpoint, resolve_targets
from codex_ml.runs.lock import claim_for_deletion
from codex_ml.runs.manifest import write_manifest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def make_checkpoint(directory: Path, step: int) -> Path:
    """Write a small whole checkpoint into a directory."""
    directory.mkdir(parents=True)
    (directory / "weights").write_text(str(step))
    write_manifest(directory, {"step": step}, Storage())
    return directory


def make_run(output_dir: Path, steps: tuple[int, ...], minute: int = 0) -> RunLayout:
    """Make a run with checkpoints."""
    layout, _ = create_run(output_dir, "a", NOON + timedelta(minutes=minute), Storage())
    for step in steps:
        make_checkpoint(layout.checkpoints / checkpoint_name(step), step)
    return layout


def test_resolve_targets_references_to_one_checkpoint_give_one_target(tmp_path: Path) -> None:
    """Best and latest may be the same; it is scored once, in the order first named."""
    layout = make_run(tmp_path, (3,))
    targets = resolve_targets(["base", "latest", "best", str(layout.directory), "base"], tmp_path, None)
    assert [target.name for target in targets] == ["base", "step-00000003"]
    assert targets[0].directory is None
    assert targets[1].manifest["step"] == 3


def test_resolve_targets_moved_checkpoint_keeps_the_name_of_its_step(tmp_path: Path) -> None:
    """The manifest says which step it is, whatever the directory is called."""
    directory = make_checkpoint(tmp_path / "my adapter", 7)
    assert [target.name for target in resolve_targets([str(directory)], tmp_path, None)] == ["step-00000007"]


def test_resolve_targets_same_step_of_two_runs_are_told_apart(tmp_path: Path) -> None:
    """The run's name goes in front where a step alone would be ambiguous."""
    runs = [make_run(tmp_path, (3,), minute) for minute in (0, 1)]
    targets = resolve_targets([str(run.directory) for run in runs], tmp_path, None)
    assert [target.name for target in targets] == [f"{run.directory.name}-step-00000003" for run in runs]


def test_shown_of_a_target_names_its_run(tmp_path: Path) -> None:
    """Whoever reads the line before the scores sees which run they are of; what lies in none has its name alone."""
    run = make_run(tmp_path / "runs", (3,))
    moved = make_checkpoint(tmp_path / "elsewhere" / "adapter", 7)
    targets = resolve_targets(["base", "best", str(moved)], tmp_path / "runs", None)
    assert [target.shown for target in targets] == ["base", f"{run.directory.name}/step-00000003", "step-00000007"]


def test_resolve_targets_same_step_in_one_directory_are_told_apart(tmp_path: Path) -> None:
    """Two copies beside each other keep two results."""
    copies = [make_checkpoint(tmp_path / "copies" / name, 3) for name in ("a", "b")]
    targets = resolve_targets([str(copy) for copy in copies], tmp_path, None)
    assert [target.name for target in targets] == ["copies-a", "copies-b"]


def test_resolve_targets_damaged_checkpoint_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    """Verification comes first."""
    directory = make_checkpoint(tmp_path / "a", 1)
    (directory / "weights").write_text("other")
    with pytest.raises(CheckpointError, match="fails its verification"):
        resolve_targets(["base", str(directory)], tmp_path, None)


def test_find_checkpoint_deleted_after_it_was_resolved_gives_the_new_latest(tmp_path: Path) -> None:
    """A run in progress saves and prunes between resolving and opening; the reference is resolved again."""
    layout = make_run(tmp_path, (3,))
    resolved: list[Path | None] = []

    def resolve(reference: str, output_dir: Path, run_name: str | None) -> Path | None:
        resolved.append(resolve_checkpoint(reference, output_dir, run_name))
        if len(resolved) == 1:
            make_checkpoint(layout.checkpoints / checkpoint_name(6), 6)
            shutil.rmtree(layout.checkpoints / checkpoint_name(3))
        return resolved[-1]

    assert find_checkpoint("latest", tmp_path, None, resolve).name == "step-00000006"
    assert len(resolved) == 2


def test_find_checkpoint_deleted_every_time_says_that_the_run_is_in_progress(tmp_path: Path) -> None:
    """The number of tries is bounded, and the error has no traceback."""
    layout = make_run(tmp_path, (1,))

    def resolve(reference: str, output_dir: Path, run_name: str | None) -> Path | None:
        found = resolve_checkpoint(reference, output_dir, run_name)
        assert found is not None
        step = int(found.name[-8:]) + 1
        make_checkpoint(layout.checkpoints / checkpoint_name(step), step)
        shutil.rmtree(found)
        return found

    with pytest.raises(CheckpointError, match="deleted each time"):
        find_checkpoint("latest", tmp_path, None, resolve)


def test_find_checkpoint_damaged_one_is_reported_as_damaged(tmp_path: Path) -> None:
    """The checkpoint still exists, so the error gives the reason of the verification."""
    layout = make_run(tmp_path, (3,))
    (layout.checkpoints / checkpoint_name(3) / "weights").write_text("other")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        find_checkpoint("latest", tmp_path, None)


def test_find_checkpoint_is_held_as_long_as_the_target_is_in_use(tmp_path: Path) -> None:
    """Loading the weights can start minutes later; retention skips the checkpoint until then."""
    layout = make_run(tmp_path, (3,))
    directory = layout.checkpoints / checkpoint_name(3)
    target = find_checkpoint("latest", tmp_path, None)
    with claim_for_deletion(directory) as is_free:
        assert not is_free
    assert target.hold is not None
    target.hold.release()
    with claim_for_deletion(directory) as is_free:
        assert is_free
        # No reader can hold the checkpoint while it is being deleted.
        with pytest.raises(CheckpointError, match="deleted each time"):
            find_checkpoint("latest", tmp_path, None)


@pytest.mark.parametrize(
    ("losses", "reference", "warns"),
    [
        ({}, "best", True),
        ({}, "RUN", True),
        ({}, "latest", False),
        ({}, "CHECKPOINT", False),
        ({"3": 1.5}, "best", False),
    ],
)
def test_find_checkpoint_best_of_a_run_without_validation_has_a_warning(tmp_path, losses, reference, warns):
    """The last checkpoint is used instead; a checkpoint that was named is used as it is."""
    layout = make_run(tmp_path, ())
    directory = layout.checkpoints / checkpoint_name(3)
    directory.mkdir(parents=True)
    (directory / "trainer_state.json").write_text(json.dumps({"trainer": {"validation_losses": losses}}))
    write_manifest(directory, {"step": 3}, Storage())
    named = {"RUN": str(layout.directory), "CHECKPOINT": str(directory)}.get(reference, reference)
    warning = find_checkpoint(named, tmp_path, None).warning
    assert (warning is not None) == warns
    assert warning is None or "has no validation: step-00000003 is its last checkpoint, not its best" in warning
