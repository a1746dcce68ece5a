"""Writes and reads checkpoints: staged beside their place, fsynced, manifest last, one rename, verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage, json_bytes
from codex_ml.io.untrusted import UntrustedFileError, read_json
from codex_ml.runs.checkpoints import (
    REPLACED_PREFIX,
    STAGING_PREFIX,
    checkpoint_name,
    list_checkpoints,
    write_pointer,
)
from codex_ml.runs.layout import TRAINER_STATE_NAME, TRAINING_STATE_NAME
from codex_ml.runs.lock import claim_for_deletion
from codex_ml.runs.manifest import verify_checkpoint, write_manifest
from codex_ml.training.checkpoint.state import TrainerState, tensor_file_pieces

# What recipes put beside the counters, where they do.
_KINDS_OF_VALUES = {"random": dict, "fingerprint": dict, "tracker_run_ids": dict, "total_steps": int}


@dataclass(frozen=True)
class CheckpointContent:
    """All that one checkpoint holds.

    Parameters
    ----------
    state : TrainerState
        Counters of the run at this step.
    tensors : dict
        Optimizer and generator states.
    values : dict
        Further JSON values: generator states of Python and NumPy, and what the run depends on.
    write_weights : callable
        Writes the adapter or model, tokenizer and generation settings into a directory.
    manifest : dict
        What the manifest says beside the digests of the files.
    weights : dict
        The trained parameters themselves, by name, for a store that keeps no files.
    """

    state: TrainerState
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    write_weights: Callable[[Path], None]
    manifest: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedState:
    """The parts of a checkpoint that training resumes from.

    The recipe reads the weights from ``directory``, unless a store without files gives them here as ``weights``.
    """

    directory: Path
    state: TrainerState
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    manifest: dict[str, Any]
    weights: dict[str, Tensor] | None = None


def save_checkpoint(checkpoints: Path, content: CheckpointContent, storage: Storage) -> Path:
    """Write a checkpoint so that at every instant it is whole or absent, and return its directory.

    The order is what makes it safe: files, their fsync, the manifest, the directory's fsync, the rename, the parent's
    fsync. The caller has synced the logs before, so that no line of an earlier step is missing beside
    a checkpoint that survives. It is verified by reading it back before the caller lets any older checkpoint go.
    """
    target = checkpoints / checkpoint_name(content.state.step)
    staged = checkpoints / f"{STAGING_PREFIX}{target.name}.{os.getpid()}"
    if staged.exists():
        storage.remove_tree(staged)
    storage.make_directory(staged)
    content.write_weights(staged)
    # What libraries wrote, with the names in every directory that they made.
    for entry in sorted(staged.rglob("*")):
        entry.chmod(0o700 if entry.is_dir() else 0o600)
        storage.fsync_file(entry)
    storage.write_pieces(staged / TRAINING_STATE_NAME, tensor_file_pieces(content.tensors))
    storage.write_bytes(staged / TRAINER_STATE_NAME, json_bytes({"trainer": content.state.to_json(), **content.values}))
    write_manifest(staged, {"step": content.state.step, **content.manifest}, storage)
    storage.fsync_directory(staged)
    _move_into_place(staged, target, storage)
    verify_checkpoint(target)
    return target


def load_checkpoint(directory: Path) -> LoadedState:
    """Verify a checkpoint and read its training state.

    Raises
    ------
    CheckpointError
        If it fails its verification, holds no training state, or one that training does not write.
    """
    manifest = verify_checkpoint(directory)
    try:
        values = _read_state(directory)
        state = TrainerState.from_json(values.pop("trainer"))
        tensors = load_file(directory / TRAINING_STATE_NAME)
    except (FileNotFoundError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint {directory} holds no training state",
            why=str(error),
            fix="resume from a checkpoint that training wrote; an exported one can only be evaluated",
            code="CHECKPOINT_NO_TRAINING_STATE",
        ) from error
    except SafetensorError as error:
        raise _unusable(directory / TRAINING_STATE_NAME, str(error)) from error
    return LoadedState(directory, state, tensors, values, manifest)


def _read_state(directory: Path) -> dict[str, Any]:
    """Return the JSON half of the training state; the manifest proves that it was written so, not by whom."""
    file = directory / TRAINER_STATE_NAME
    try:
        values = read_json(file, follow_links=False)
    except UntrustedFileError as error:
        raise _unusable(file, str(error)) from error
    if not isinstance(values, dict):
        raise _unusable(file, "it is no object")
    for key, kind in _KINDS_OF_VALUES.items():
        if key in values and not isinstance(values[key], kind):
            raise _unusable(file, f"{key} is of another kind than training writes")
    return values


def _unusable(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} cannot be used",
        why=why,
        fix="resume from another checkpoint of the run",
        code="CHECKPOINT_FILE_UNUSABLE",
    )


def point_and_prune(
    checkpoints: Path,
    state: TrainerState,
    keep_last: int,
    keep_best: int,
    storage: Storage,
    keep_every_steps: int | None = None,
) -> list[int]:
    """Let `latest` and `best` name their steps, delete what retention no longer keeps, and return the steps deleted.

    Called only after the newest checkpoint was verified. Without any evaluation the newest is the best. Those at
    multiples of ``keep_every_steps`` stay for good, and one that another process reads stays until the next call.
    Nothing is done where the state has no checkpoint.
    """
    steps = [step for step, _ in list_checkpoints(checkpoints)]
    if state.step not in steps:
        return []
    ranked = rank_by_validation(steps, state.validation_losses)
    best = ranked[0] if ranked else state.step
    write_pointer(checkpoints, "latest", state.step, storage)
    write_pointer(checkpoints, "best", best, storage)
    # Steps beyond the current one belong to a future that a resume from an older checkpoint gave up.
    kept = set(sorted(step for step in steps if step <= state.step)[-max(1, keep_last) :])
    kept |= {*ranked[:keep_best], best, state.step}
    if keep_every_steps is not None:
        kept |= {step for step in steps if step <= state.step and step % keep_every_steps == 0}
    removed = []
    for step in steps:
        if step in kept:
            continue
        with claim_for_deletion(checkpoints / checkpoint_name(step)) as is_free:
            if not is_free:
                # An evaluation is reading it; the next call deletes it.
                continue
            # Renamed first: an interrupted deletion must not leave half a checkpoint under a checkpoint's name.
            doomed = checkpoints / f"{STAGING_PREFIX}removed-{checkpoint_name(step)}"
            storage.replace(checkpoints / checkpoint_name(step), doomed)
            # Forced to the disk before the first file goes: a power failure must not bring the name back without them.
            storage.fsync_directory(checkpoints)
            storage.remove_tree(doomed)
            removed.append(step)
    return removed


def rank_by_validation(steps: Sequence[int], losses: dict[int, float]) -> list[int]:
    """Return the steps that were evaluated, lowest validation loss first, earlier step first among equals."""
    return sorted((step for step in steps if step in losses), key=lambda step: (losses[step], step))


def _move_into_place(staged: Path, target: Path, storage: Storage) -> None:
    aside = None
    if target.exists():
        # A resume from an older checkpoint reaches this step again: the one there is replaced, never merged.
        aside = target.with_name(f"{REPLACED_PREFIX}{target.name}.{os.getpid()}")
        storage.replace(target, aside)
    storage.replace(staged, target)
    storage.fsync_directory(target.parent)
    if aside is not None:
        storage.remove_tree(aside)
