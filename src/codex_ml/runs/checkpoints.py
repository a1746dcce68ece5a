"""Checkpoint directories of a run: names, order, the pointers `latest` and `best`."""

from __future__ import annotations

import itertools
import math
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import PARTIAL_SUFFIX, Storage
from codex_ml.io.untrusted import read_bytes, read_json
from codex_ml.runs.layout import TRAINER_STATE_NAME, RunLayout, find_runs, near_names
from codex_ml.runs.manifest import MANIFEST_NAME, verify_checkpoint

Pointer = Literal["latest", "best"]
_NAME = re.compile(r"step-(\d{8,})")
_POINTER_BYTES = 200
_SHOWN_NAMES = 10
# Begins the name of a directory with checkpoints of a future that was given up.
ABANDONED_PREFIX = "abandoned-"
# Why a checkpoint was passed over without being read: that says nothing of damage.
GIVEN_UP = "it was given up when the run went back to step"
_GOING_BACK = ".going-back"
_INTENTION = re.compile(rf"step-(?P<step>\d{{8,}}) (?P<aside>{ABANDONED_PREFIX}[0-9TZ.]+)")
STAGING_PREFIX = ".staging-"
# Begins the name of a checkpoint that another of its step is about to replace; the step's name and a number follow.
REPLACED_PREFIX = f"{STAGING_PREFIX}replaced-"


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint that was not used, and why."""

    directory: Path
    reason: str


def checkpoint_name(step: int) -> str:
    """Return the directory name of a checkpoint, such as ``step-00000100``."""
    return f"step-{step:08d}"


def step_of(directory: Path) -> int | None:
    """Return the step a checkpoint directory is named for; None for any other name."""
    match = _NAME.fullmatch(directory.name)
    return int(match.group(1)) if match else None


def list_checkpoints(checkpoints: Path) -> list[tuple[int, Path]]:
    """Return (step, directory) of every checkpoint, oldest first, ordered by number."""
    if not checkpoints.is_dir():
        return []
    # A link is no checkpoint of this run: retention must not delete, nor resume read, what lies elsewhere.
    own = [entry for entry in checkpoints.iterdir() if entry.is_dir() and not entry.is_symlink()]
    pairs = [(step_of(entry), entry) for entry in own]
    return sorted((step, entry) for step, entry in pairs if step is not None)


def newest_whole(checkpoints: Path) -> tuple[Path | None, list[PassedOver]]:
    """Return the newest checkpoint that passes its verification, and those passed over on the way."""
    passed_over: list[PassedOver] = []
    going_back = _going_back(checkpoints)
    for step, directory in reversed(list_checkpoints(checkpoints)):
        if going_back is not None and step > going_back[0]:
            reason = f"{GIVEN_UP} {going_back[0]}"
            passed_over.append(PassedOver(directory, reason))
            continue
        try:
            verify_checkpoint(directory)
        except CheckpointError as error:
            passed_over.append(PassedOver(directory, error.why or error.what))
            continue
        return directory, passed_over
    return None, passed_over


def write_pointer(checkpoints: Path, pointer: Pointer, step: int, storage: Storage) -> None:
    """Let `latest` or `best` name a step."""
    storage.write_atomic(checkpoints / pointer, f"{checkpoint_name(step)}\n".encode())


def read_pointer(checkpoints: Path, pointer: Pointer) -> Path | None:
    """Return the checkpoint a pointer names; None when there is no such pointer or checkpoint, or it is damaged."""
    try:
        name = read_bytes(checkpoints / pointer, _POINTER_BYTES, follow_links=False).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    # Only a name of the known form: a pointer from a stranger must not lead out of the run directory.
    directory = checkpoints / name
    return directory if _NAME.fullmatch(name) and directory.is_dir() and not directory.is_symlink() else None


def remove_staged(checkpoints: Path, storage: Storage) -> list[str]:
    """Delete what an interrupted save or deletion left behind, and return the names.

    A checkpoint that was about to be replaced comes back under its name when its successor did not arrive.
    """
    if not checkpoints.is_dir():
        return []
    leftovers = [entry for entry in checkpoints.iterdir() if entry.name.startswith(STAGING_PREFIX)]
    for entry in leftovers:
        target = _replaced_by(entry)
        if target is not None and not target.exists():
            storage.replace(entry, target)
            storage.fsync_directory(checkpoints)
        else:
            storage.remove_tree(entry)
    return sorted(entry.name for entry in leftovers) + remove_partial(checkpoints, storage)


def remove_partial(directory: Path, storage: Storage) -> list[str]:
    """Delete the files of atomic writes that were interrupted before their rename, and return the names."""
    leftovers = [entry for entry in directory.glob(f".*{PARTIAL_SUFFIX}") if entry.is_file()]
    for entry in leftovers:
        storage.unlink(entry)
    return sorted(entry.name for entry in leftovers)


def set_aside_newer(checkpoints: Path, step: int, stamp: str, storage: Storage) -> list[str]:
    """Move checkpoints of later steps into ``abandoned-<stamp>/`` when a run goes on from an earlier one.

    They belong to a future that is given up: left in place, a later resume would jump back into it, with logs that were
    cut. They are moved and not deleted, because somebody spent hours on them. The intention is written down before the
    first is moved: from then on `newest_whole` passes them over, and the next call finishes what was interrupted.

    Returns
    -------
    list of str
        What lies aside now, relative to ``checkpoints``; also what an interrupted call for this step had moved.
    """
    newer = [directory for number, directory in list_checkpoints(checkpoints) if number > step]
    interrupted = _going_back(checkpoints)
    if not newer and interrupted is None:
        return []
    name = interrupted[1] if interrupted is not None and interrupted[0] == step else None
    aside = checkpoints / (name or _unused_name(checkpoints, f"{ABANDONED_PREFIX}{stamp}"))
    if newer:
        storage.write_atomic(checkpoints / _GOING_BACK, f"{checkpoint_name(step)} {aside.name}\n".encode())
        storage.make_directory(aside)
        for directory in newer:
            storage.replace(directory, aside / directory.name)
        storage.fsync_directory(aside)
        storage.fsync_directory(checkpoints)
    write_pointer(checkpoints, "latest", step, storage)
    storage.unlink(checkpoints / _GOING_BACK)
    # Were it there again after a power loss, it would speak against checkpoints that are yet to come.
    storage.fsync_directory(checkpoints)
    return [f"{aside.name}/{directory.name}" for _, directory in list_checkpoints(aside)]


def restore_instructions(directory: Path) -> str:
    """Return what brings a checkpoint back that was set aside, as commands to type.

    The lines that its steps had in the logs were cut when the run went back, and do not come back with it.
    """
    place = directory.parent.parent
    target = place / directory.name
    move = f"mv {shlex.quote(str(directory))} {shlex.quote(str(place))}/"
    if os.path.lexists(target):
        # One of its step was made again since.
        move = f"mv {shlex.quote(str(target))} {shlex.quote(str(place.parent))}/ && {move}"
    return f"{move} and then codex-ml train … --resume-from {shlex.quote(str(target))}"


def is_set_aside(directory: Path) -> bool:
    """Tell whether a directory is a checkpoint that `set_aside_newer` moved."""
    aside = directory.parent
    return (
        step_of(directory) is not None
        and aside.name.startswith(ABANDONED_PREFIX)
        and run_of_checkpoint(aside) is not None
    )


def _going_back(checkpoints: Path) -> tuple[int, str] | None:
    """Return the step to which a run is going back and the name of the directory for the later ones; None: it is not.

    The file is there only while checkpoints are moved, and after a kill in the midst of it.
    """
    try:
        text = read_bytes(checkpoints / _GOING_BACK, _POINTER_BYTES, follow_links=False).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    match = _INTENTION.fullmatch(text)
    return (int(match["step"]), match["aside"]) if match else None


def _unused_name(checkpoints: Path, name: str) -> str:
    """Return a name that nothing has: a run may go back twice within one second."""
    numbered = (f"{name}.{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if not os.path.lexists(checkpoints / each))


def resolve_checkpoint(reference: str, output_dir: Path, run_name: str | None) -> Path | None:
    """Return the checkpoint directory that a command-line reference means; None for the base model.

    Parameters
    ----------
    reference : str
        ``base``, ``latest`` or ``best`` (of the newest run), a run directory (its best), or a checkpoint directory.
    output_dir : Path
        Where runs lie.
    run_name : str, optional
        Only runs of this name count for ``latest`` and ``best``.

    Raises
    ------
    UserError, CheckpointError
        If nothing fits; the message says what was looked for and what is there.
    """
    if reference == "base":
        return None
    if reference in ("latest", "best"):
        return _of_newest_run(reference, output_dir, run_name)
    path = locate_run(reference, output_dir).resolve()
    if (path / MANIFEST_NAME).is_file():
        return path
    if (path / "run.json").is_file():
        return _best_of(RunLayout(path))
    raise CheckpointError(
        f"--checkpoint {reference}: no checkpoint there",
        why=_what_is_at(path),
        fix="name a checkpoint directory (checkpoints/step-…), a run directory, latest, best or base",
    )


def locate_run(reference: str | Path, output_dir: Path) -> Path:
    """Return the path a reference means: as it stands, or where it is the bare name of a run, below the runs."""
    path = Path(reference)
    named = output_dir / path
    return named if not path.exists() and len(path.parts) == 1 and (named / "run.json").is_file() else path


def run_of_checkpoint(directory: Path) -> RunLayout | None:
    """Return the run a checkpoint lies in; None when it was moved out of its run."""
    layout = RunLayout(directory.parent.parent)
    return layout if directory.parent.name == "checkpoints" and layout.record.is_file() else None


def _replaced_by(entry: Path) -> Path | None:
    """Return where a checkpoint belongs that was set aside to be replaced; None for any other leftover."""
    name = entry.name.removeprefix(REPLACED_PREFIX).split(".")[0]
    return entry.with_name(name) if entry.name.startswith(REPLACED_PREFIX) and _NAME.fullmatch(name) else None


def _of_newest_run(pointer: Literal["latest", "best"] | str, output_dir: Path, run_name: str | None) -> Path:
    for layout, _ in find_runs(output_dir, run_name):
        if not list_checkpoints(layout.checkpoints):
            continue
        return _best_of(layout) if pointer == "best" else final_checkpoint(layout)
    named = f" named {run_name!r}" if run_name else ""
    raise UserError(
        f"--checkpoint {pointer}: no run{named} with a checkpoint in {output_dir}",
        fix=_other_names(run_name, output_dir) + "train first (codex-ml train …), or name a checkpoint directory",
    )


def names_with_checkpoints(output_dir: Path) -> list[str]:
    """Return the names of the runs that have a checkpoint, each once, that of the newest run first."""
    runs = find_runs(output_dir)
    return list(dict.fromkeys(record.name for layout, record in runs if list_checkpoints(layout.checkpoints)))


def _other_names(run_name: str | None, output_dir: Path) -> str:
    """Return which names there are instead of one that no run with a checkpoint has; without a name nothing."""
    names = names_with_checkpoints(output_dir) if run_name is not None else []
    if run_name is None or not names:
        return ""
    near = near_names(run_name, names)
    hint = f"did you mean run.name={near[0]}? " if near else ""
    more = " …" if len(names) > _SHOWN_NAMES else ""
    return f"{hint}the names there are {', '.join(names[:_SHOWN_NAMES])}{more}; or "


def _best_of(layout: RunLayout) -> Path:
    """Return what `best` names; without such a file, what it would name, or the newest where nothing was validated.

    Raises
    ------
    CheckpointError
        If the file is there and names no checkpoint: what would be scored in its place was not asked for.
    """
    named = read_pointer(layout.checkpoints, "best")
    if named is not None:
        return named
    measured = best_by_validation(list_checkpoints(layout.checkpoints))
    if not os.path.lexists(layout.checkpoints / "best"):
        return measured or final_checkpoint(layout)
    instead = f"{measured}, which is the best by the validation losses in the run" if measured else "a checkpoint"
    raise CheckpointError(
        f"the file {layout.checkpoints / 'best'} is damaged",
        why="it names no checkpoint that is there",
        fix=f"name {instead}; the next resume of the run writes the file again",
    )


def final_checkpoint(layout: RunLayout) -> Path:
    """Return the newest whole checkpoint of a run.

    Raises
    ------
    CheckpointError
        If it has none; the message says what is wrong with each.
    """
    directory, passed_over = newest_whole(layout.checkpoints)
    if directory is None:
        reasons = "; ".join(f"{item.directory.name}: {item.reason}" for item in passed_over)
        raise CheckpointError(
            f"the run {layout.directory.name} has no whole checkpoint",
            why=reasons or "none was written",
            fix="resume the run (codex-ml train … --resume-from latest), or name another",
        )
    return directory


def _what_is_at(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist"
    if path.is_file():
        return f"{path} is a file"
    names = sorted(entry.name for entry in path.iterdir())[:8]
    return f"{path} holds {', '.join(names) if names else 'nothing'}, but neither {MANIFEST_NAME} nor run.json"


def best_by_validation(checkpoints: Sequence[tuple[int, Path]]) -> Path | None:
    """Return the checkpoint of the lowest validation loss, the earlier one among equals.

    Parameters
    ----------
    checkpoints : sequence of tuple
        (step, directory) of each, oldest first. The newest that can be read knows the losses of all before it.

    Returns
    -------
    Path, optional
        None where no state can be read, or it has no loss of a checkpoint that is there.
    """
    for _, newest in reversed(checkpoints):
        losses = _validation_losses(newest / TRAINER_STATE_NAME)
        if losses is not None:
            ranked = [(losses[step], step, directory) for step, directory in checkpoints if step in losses]
            return min(ranked, default=(0.0, 0, None))[2]
    return None


def is_validated(checkpoints: Sequence[tuple[int, Path]]) -> bool:
    """Tell whether `best` names a best: until the first validation it names the newest, for want of a better one.

    Where no state can be read nobody knows, and the pointer is believed.
    """
    for _, newest in reversed(checkpoints):
        try:
            trainer = read_json(newest / TRAINER_STATE_NAME, follow_links=False)["trainer"]
            return bool(trainer.get("validation_losses")) or trainer.get("best_metric") is not None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return True


def _validation_losses(state: Path) -> dict[int, float] | None:
    try:
        losses = read_json(state, follow_links=False)["trainer"]["validation_losses"]
        values = {int(step): float(loss) for step, loss in losses.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return values if all(math.isfinite(loss) for loss in values.values()) else None
