"""What a recorded run promised and when, the disks that a power loss may leave, and whether they keep the promise."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recording_storage import Data, Disk, Names, Operation, RecordingStorage

from codex_ml.errors import CheckpointError
from codex_ml.monitoring.codex_logging import read_ndjson
from codex_ml.runs.checkpoints import list_checkpoints, newest_whole, read_pointer, step_of
from codex_ml.runs.layout import RunLayout, find_runs
from codex_ml.runs.manifest import verify_checkpoint

MODELS: tuple[tuple[Names, Data], ...] = (
    ("synced", "synced"),
    ("synced", "torn"),
    ("at_once", "synced"),
    ("at_once", "torn"),
    ("at_once", "kept"),
    ("either", "either"),
    ("either", "either"),
)
# One fault is seen on many disks.
ENOUGH_FAULTS = 20
Tree = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Loss:
    """One instant of a power loss (how many operations were made before it) and the disk it leaves."""

    instant: int
    model: tuple[Names, Data]
    tree: Tree


class Story:
    """What a recorded process did, and when: the measure of what each disk must hold.

    Parameters
    ----------
    storage : RecordingStorage
        With which the process worked, to its end.
    run : Path
        The run directory, as the process left it.
    """

    def __init__(self, storage: RecordingStorage, run: Path) -> None:
        self.log: Sequence[Operation] = storage.log
        self.began_at = storage.began_at
        root = storage.root
        self.checkpoints = f"{run.relative_to(root).as_posix()}/checkpoints"
        # Each checkpoint as it was renamed into place; the instants from which, and until which, it must be there.
        self.content: dict[int, Tree] = {}
        self.saved_at: dict[int, int] = {}
        self.released_at: dict[int, int] = {}
        self.events_at: dict[int, int] = {}
        self.metrics = list(read_ndjson(RunLayout(run).metrics))
        self.events = list(read_ndjson(RunLayout(run).events))
        self._tell()

    def _tell(self) -> None:
        disk = Disk()
        arrived: int | None = None
        chance = random.Random(0)
        for instant, operation in enumerate(self.log):
            if instant == self.began_at:
                self._take_in(disk.after_power_loss("at_once", "kept", chance))
            if operation.kind == "make_directory" and ".staging-step-" in operation.path:
                now = disk.after_power_loss("at_once", "kept", chance)
                lines = sum(len(_lines(data)) for path, data in now.items() if "/events.ndjson" in path)
                self.events_at[int(operation.path.split("step-")[1].split(".")[0])] = lines
            if operation.kind == "rename":
                old, new = step_of(Path(operation.path)), step_of(Path(operation.target))
                if new is not None:
                    now = disk.after_power_loss("at_once", "kept", chance)
                    inside = f"{operation.path}/"
                    self.content[new] = {p.removeprefix(inside): d for p, d in now.items() if p.startswith(inside)}
                    arrived = new
                if old is not None:
                    self.released_at[old] = instant
            if arrived is not None and operation.kind == "create" and "/.latest." in operation.path:
                # The pointer is written by whoever was told that the checkpoint is there.
                self.saved_at[arrived], arrived = instant, None
            disk.apply(operation)

    def _take_in(self, tree: Tree) -> None:
        """Note the checkpoints that an earlier process left."""
        for path in tree:
            step = step_of(Path(path))
            if step is not None and str(Path(path).parent) == self.checkpoints:
                self.content[step] = _inside(tree, f"{path}/")
                self.saved_at[step] = self.began_at

    def required(self, instant: int) -> set[int]:
        """Return the steps whose save was reported before an instant, and whose removal had not begun."""
        never = len(self.log)
        return {step for step, saved in self.saved_at.items() if saved <= instant <= self.released_at.get(step, never)}


def losses(story: Story) -> Iterator[Loss]:
    """Yield every disk that a power loss may leave after each prefix of a log, each different one once a prefix."""
    log = story.log
    disk = Disk()
    for instant in range(len(log) + 1):
        if instant:
            disk.apply(log[instant - 1])
        if instant < story.began_at:
            continue
        seen: list[Tree] = []
        for number, model in enumerate(MODELS):
            tree = disk.after_power_loss(*model, random.Random(instant * len(MODELS) + number))
            if tree not in seen:
                seen.append(tree)
                yield Loss(instant, model, tree)


def build(tree: Tree, directory: Path, contents: dict[bytes, Path] | None = None) -> None:
    """Make a tree real; with `contents` as hard links to files that serve many trees, to be read and never written."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in tree.items():
        path = directory / name
        if data is None:
            path.mkdir(parents=True)
        elif contents is None:
            path.write_bytes(data)
        else:
            if data not in contents:
                contents[data] = directory.parent / "contents" / str(len(contents))
                contents[data].parent.mkdir(exist_ok=True)
                contents[data].write_bytes(data)
            os.link(contents[data], path)


@dataclass(frozen=True)
class Judged:
    """What the toolkit sees of a disk: steps that have a checkpoint, whether the run is found, and what is wrong."""

    steps: frozenset[int]
    is_found: bool
    faults: tuple[str, ...]


def judge(tree: Tree, root: Path, story: Story) -> Judged:
    """Look at a disk after a power loss with the toolkit's own eyes."""
    checkpoints = root / story.checkpoints
    run = checkpoints.parent
    faults: list[str] = []
    there = dict(list_checkpoints(checkpoints))
    for step, directory in there.items():
        try:
            verify_checkpoint(directory)
        except CheckpointError as error:
            faults.append(f"{directory.name} is not whole: {error.why}")
        if _inside(tree, f"{story.checkpoints}/{directory.name}/") != story.content.get(step):
            faults.append(f"{directory.name} differs from what was saved")
    newest, passed_over = newest_whole(checkpoints)
    if passed_over or (newest is None) != (not there) or (newest and step_of(newest) != max(there)):
        faults.append(f"the newest checkpoint found is {newest}, of {sorted(there)}")
    for pointer in ("latest", "best"):
        if (checkpoints / pointer).exists() and read_pointer(checkpoints, pointer) is None:
            faults.append(f"{pointer} says {(checkpoints / pointer).read_bytes()!r}")
    faults += [f"{path.name} cannot be read" for path in run.glob("*.json") if not _is_json(path)]
    if newest is not None:
        faults += _faults_of_logs(run, step_of(newest) or 0, story)
    is_found = [layout.directory for layout, _ in find_runs(run.parent)] == [run]
    return Judged(frozenset(there), is_found, tuple(faults))


def _faults_of_logs(run: Path, step: int, story: Story) -> list[str]:
    faults: list[str] = []
    layout = RunLayout(run)
    expected = [record for record in story.metrics if record["step"] <= step]
    found = [record for record in read_ndjson(layout.metrics) if record["step"] <= step]
    if found != expected:
        faults.append(f"metrics up to step {step}: {len(found)} lines instead of {len(expected)}")
    events = list(read_ndjson(layout.events))
    if events != story.events[: len(events)] or len(events) < story.events_at.get(step, 0):
        faults.append(f"events: {len(events)} lines instead of {story.events_at.get(step, 0)} or more")
    return faults


def _lines(data: bytes | None) -> list[bytes]:
    return (data or b"").split(b"\n")[:-1]


def _inside(tree: Tree, prefix: str) -> Tree:
    return {path.removeprefix(prefix): data for path, data in tree.items() if path.startswith(prefix)}


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


def sweep(story: Story, directory: Path) -> tuple[int, list[str]]:
    """Check every disk of a story; return how many there were and what is wrong, with the last operation before it."""
    contents: dict[bytes, Path] = {}
    judged: dict[frozenset[tuple[str, bytes | None]], Judged] = {}
    count, faults = 0, []
    for count, loss in enumerate(losses(story), start=1):
        key = frozenset(loss.tree.items())
        if key not in judged:
            root = directory / str(count)
            build(loss.tree, root, contents)
            judged[key] = judge(loss.tree, root, story)
            shutil.rmtree(root)
        seen, required = judged[key], story.required(loss.instant)
        found = [f"step {step} was reported as saved and is gone" for step in sorted(required - seen.steps)]
        found += ["the run is not found"] if required and not seen.is_found else []
        last = story.log[loss.instant - 1]
        place = f"{loss.instant} {'/'.join(loss.model)} after {last.kind} {last.path}"
        faults += [f"{place}: {fault}" for fault in (*seen.faults, *found)]
        if len(faults) >= ENOUGH_FAULTS:
            break
    return count, faults
