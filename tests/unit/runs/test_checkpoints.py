"""Checkpoints are ordered by number, pointed to by name, and the newest whole one is found."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.runs.checkpoints import (
    checkpoint_name,
    list_checkpoints,
    newest_whole,
    read_pointer,
    remove_staged,
    resolve_checkpoint,
    run_of_checkpoint,
    step_of,
    write_pointer,
)
from codex_ml.runs.layout import RunLayout, create_run
from codex_ml.runs.manifest import write_manifest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def make_checkpoint(checkpoints: Path, step: int) -> Path:
    """Write a small whole checkpoint."""
    directory = checkpoints / checkpoint_name(step)
    directory.mkdir(parents=True)
    (directory / "weights").write_text(str(step))
    write_manifest(directory, {"step": step}, Storage())
    return directory


def make_run(output_dir: Path, name: str = "a", steps: tuple[int, ...] = (), minute: int = 0) -> RunLayout:
    """Make a run with checkpoints."""
    layout, _ = create_run(output_dir, name, NOON + timedelta(minutes=minute), Storage())
    for step in steps:
        make_checkpoint(layout.checkpoints, step)
    return layout


def test_list_checkpoints_order_is_by_number(tmp_path: Path) -> None:
    """Ten comes after nine, and nine digits after eight; other entries are no checkpoints."""
    for step in (100_000_000, 10, 9, 99_999_999):
        make_checkpoint(tmp_path, step)
    for stray in ("step-7", "step-00000011.bak", ".staging-step-00000012.1", "xstep-00000013"):
        (tmp_path / stray).mkdir()
    (tmp_path / "step-00000014").write_text("a file")
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 10, 99_999_999, 100_000_000]
    assert list_checkpoints(tmp_path / "absent") == []


def test_step_of_name_round_trip_is_equal() -> None:
    """The name and the number are one to one."""
    assert step_of(Path(checkpoint_name(123))) == 123
    assert step_of(Path("step-00000123\n")) is None
    assert step_of(Path("latest")) is None


def test_newest_whole_damaged_ones_are_passed_over_and_named(tmp_path: Path) -> None:
    """The newest good one is found behind one with a changed file and one without a manifest."""
    good = make_checkpoint(tmp_path, 1)
    (make_checkpoint(tmp_path, 2) / "weights").write_text("other")
    (make_checkpoint(tmp_path, 3) / "manifest.json").unlink()
    found, passed_over = newest_whole(tmp_path)
    assert found == good
    assert [(item.directory.name, item.reason) for item in passed_over] == [
        ("step-00000003", "it has no manifest.json"),
        ("step-00000002", "weights differs from its checksum"),
    ]


def test_newest_whole_none_is_good_returns_all_reasons(tmp_path: Path) -> None:
    """Without a good one there is none, and it is said why."""
    (make_checkpoint(tmp_path, 2) / "weights").unlink()
    found, passed_over = newest_whole(tmp_path)
    assert found is None
    assert len(passed_over) == 1
    assert newest_whole(tmp_path / "absent") == (None, [])


def test_read_pointer_written_pointer_leads_to_checkpoint(tmp_path: Path) -> None:
    """`latest` and `best` are small text files that name a step."""
    directory = make_checkpoint(tmp_path, 5)
    write_pointer(tmp_path, "best", 5, Storage())
    assert (tmp_path / "best").read_text() == "step-00000005\n"
    assert read_pointer(tmp_path, "best") == directory
    assert read_pointer(tmp_path, "latest") is None


@pytest.mark.parametrize(
    "content", ["../step-00000005", "/etc", "", ".", "step-00000005/../step-00000005", "step-00000006"]
)
def test_read_pointer_other_content_is_ignored(content: str, tmp_path: Path) -> None:
    """A pointer cannot lead out of its directory, nor to what is not there."""
    checkpoints = tmp_path / "checkpoints"
    make_checkpoint(checkpoints, 5)
    make_checkpoint(tmp_path, 5)
    (checkpoints / "best").write_text(content)
    assert read_pointer(checkpoints, "best") is None


def test_remove_staged_leftovers_go_and_checkpoints_stay(tmp_path: Path) -> None:
    """Only what an interrupted save left is deleted."""
    make_checkpoint(tmp_path, 5)
    (tmp_path / ".staging-step-00000006.77").mkdir()
    (tmp_path / ".staging-step-00000006.77" / "weights").write_text("torso")
    (tmp_path / ".staging-removed-step-00000001").mkdir()
    assert remove_staged(tmp_path, Storage()) == [".staging-removed-step-00000001", ".staging-step-00000006.77"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000005"]
    assert remove_staged(tmp_path / "absent", Storage()) == []


def test_resolve_checkpoint_base_is_none(tmp_path: Path) -> None:
    """The base model needs no checkpoint."""
    assert resolve_checkpoint("base", tmp_path, None) is None


def test_resolve_checkpoint_latest_is_newest_whole_of_newest_run(tmp_path: Path) -> None:
    """The pointer file is not trusted: the newest whole one counts; a run without checkpoints is passed over."""
    make_run(tmp_path, steps=(50,))
    newer = make_run(tmp_path, steps=(9, 10, 11), minute=1)
    (newer.checkpoints / checkpoint_name(11) / "weights").write_text("torn")
    make_run(tmp_path, steps=(), minute=2)
    assert resolve_checkpoint("latest", tmp_path, "a") == newer.checkpoints / checkpoint_name(10)


def test_resolve_checkpoint_best_follows_the_pointer(tmp_path: Path) -> None:
    """Best is what the pointer names; without one it is the newest."""
    layout = make_run(tmp_path, steps=(9, 10))
    assert resolve_checkpoint("best", tmp_path, None) == layout.checkpoints / checkpoint_name(10)
    write_pointer(layout.checkpoints, "best", 9, Storage())
    assert resolve_checkpoint("best", tmp_path, None) == layout.checkpoints / checkpoint_name(9)
    assert resolve_checkpoint("latest", tmp_path, None) == layout.checkpoints / checkpoint_name(10)


def test_resolve_checkpoint_run_name_limits_latest_and_best(tmp_path: Path) -> None:
    """A newer run of another name does not count."""
    wanted = make_run(tmp_path, "a", steps=(1,))
    make_run(tmp_path, "b", steps=(2,), minute=1)
    assert resolve_checkpoint("latest", tmp_path, "a") == wanted.checkpoints / checkpoint_name(1)
    with pytest.raises(UserError, match=f"no run named 'c' with a checkpoint in {tmp_path}"):
        resolve_checkpoint("best", tmp_path, "c")


def test_resolve_checkpoint_unknown_run_name_lists_the_names_there(tmp_path: Path) -> None:
    """The nearest comes first; a run without a checkpoint has nothing to be scored, and an empty place no names."""
    make_run(tmp_path, "notes", steps=(1,))
    make_run(tmp_path, "orders", steps=(2,), minute=1)
    make_run(tmp_path, "empty", minute=2)
    with pytest.raises(UserError, match="no run named 'ntoes'") as caught:
        resolve_checkpoint("best", tmp_path, "ntoes")
    assert caught.value.exit_code == 2
    assert caught.value.fix.startswith("did you mean run.name=notes? the names there are orders, notes; or train first")
    with pytest.raises(UserError) as caught:
        resolve_checkpoint("best", tmp_path / "nowhere", "ntoes")
    assert caught.value.fix.startswith("train first")


def test_resolve_checkpoint_run_directory_is_its_best(tmp_path: Path) -> None:
    """A run stands for its best checkpoint."""
    layout = make_run(tmp_path, steps=(3, 4))
    write_pointer(layout.checkpoints, "best", 3, Storage())
    assert resolve_checkpoint(str(layout.directory), tmp_path / "other", None) == layout.checkpoints / checkpoint_name(
        3
    )


def with_losses(checkpoints: Path, step: int, losses: dict[int, float]) -> Path:
    """Write a whole checkpoint whose state knows these validation losses."""
    directory = checkpoints / checkpoint_name(step)
    directory.mkdir(parents=True)
    known = {str(number): loss for number, loss in losses.items()}
    (directory / "trainer_state.json").write_text(json.dumps({"trainer": {"validation_losses": known}}))
    write_manifest(directory, {"step": step}, Storage())
    return directory


@pytest.mark.parametrize("content", [b"", b"step-00000007\n", b"step-0000\x00003", b"\xff\xfe", b"x" * 999])
@pytest.mark.parametrize("reference", ["best", "run"])
def test_resolve_checkpoint_damaged_best_is_refused_and_the_best_named(
    content: bytes, reference: str, tmp_path: Path
) -> None:
    """Another checkpoint than the best would be scored under its name otherwise."""
    layout = make_run(tmp_path)
    best = with_losses(layout.checkpoints, 3, {3: 1.0})
    with_losses(layout.checkpoints, 4, {3: 1.0, 4: 2.0})
    (layout.checkpoints / "best").write_bytes(content)
    with pytest.raises(CheckpointError, match="best is damaged") as caught:
        resolve_checkpoint("best" if reference == "best" else str(layout.directory), tmp_path, None)
    assert str(best) in caught.value.fix


def test_resolve_checkpoint_absent_best_is_what_it_would_name(tmp_path: Path) -> None:
    """The validation losses say which it is, damaged states left aside; without any, it is the newest."""
    layout = make_run(tmp_path)
    with_losses(layout.checkpoints, 2, {})
    assert resolve_checkpoint("best", tmp_path, None) == layout.checkpoints / checkpoint_name(2)
    with_losses(layout.checkpoints, 3, {3: 1.0})
    with_losses(layout.checkpoints, 4, {1: 0.5, 3: 1.0, 4: 2.0})
    (with_losses(layout.checkpoints, 5, {}) / "trainer_state.json").write_bytes(b"[" * 9000)
    assert resolve_checkpoint("best", tmp_path, None) == layout.checkpoints / checkpoint_name(3)


def test_resolve_checkpoint_directory_is_itself(tmp_path: Path) -> None:
    """A checkpoint directory means itself, also when moved and renamed."""
    moved = make_checkpoint(tmp_path, 3).rename(tmp_path / "my adapter")
    assert resolve_checkpoint(str(moved), tmp_path, None) == moved


def test_resolve_checkpoint_run_without_whole_checkpoint_names_the_faults(tmp_path: Path) -> None:
    """All were damaged: which, and how."""
    layout = make_run(tmp_path, steps=(3,))
    (layout.checkpoints / checkpoint_name(3) / "weights").unlink()
    with pytest.raises(CheckpointError, match="has no whole checkpoint") as caught:
        resolve_checkpoint(str(layout.directory), tmp_path, None)
    assert caught.value.why == "step-00000003: weights is missing"
    empty = make_run(tmp_path, "b")
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(str(empty.directory), tmp_path, None)
    assert caught.value.why == "none was written"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("absent", "does not exist"), ("file", "is a file"), ("empty", "holds nothing"), ("full", "holds notes.txt")],
)
def test_resolve_checkpoint_nothing_fits_says_what_is_there(name: str, expected: str, tmp_path: Path) -> None:
    """The message says what was found in place of a checkpoint."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match="no checkpoint there") as caught:
        resolve_checkpoint(str(tmp_path / name), tmp_path, None)
    assert expected in caught.value.why


def test_run_of_checkpoint_moved_out_is_none(tmp_path: Path) -> None:
    """A checkpoint in its place knows its run; a copy elsewhere does not."""
    layout = make_run(tmp_path, steps=(3,))
    inside = layout.checkpoints / checkpoint_name(3)
    assert run_of_checkpoint(inside) == layout
    assert run_of_checkpoint(inside.rename(tmp_path / "moved")) is None
