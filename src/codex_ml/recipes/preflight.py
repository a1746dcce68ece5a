"""What is checked before a run directory exists: processes, lengths, disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import DataError, ModelError, UserError
from codex_ml.generation.generator import maximum_positions
from codex_ml.models.device import choose_dtype
from codex_ml.recipes.model_setup import TrainableModel
from codex_ml.recipes.preparation import Prepared
from codex_ml.recipes.resume import ResumePoint
from codex_ml.runs.checkpoints import list_checkpoints, step_of
from codex_ml.runs.manifest import MANIFEST_NAME
from codex_ml.storage import Storage
from codex_ml.training.plan import Plan, check_disk


def refuse_several_processes(environment: Mapping[str, str]) -> None:
    """Stop when a launcher started several processes: each would train alone on all records, in its own directory.

    Raises
    ------
    UserError
        If the environment says that there are more processes than this one.
    """
    count = environment.get("WORLD_SIZE", "1")
    if count not in ("", "1"):
        raise UserError(
            f"started as one of {count} processes (WORLD_SIZE), which this version does not train in",
            why="every process would train its own adapter on all of the records",
            fix="start codex-ml train directly, without torchrun or accelerate launch",
        )


def refuse_records_beyond_positions(config: TrainConfig, prepared: Prepared, model: PreTrainedModel) -> None:
    """Stop when a record is longer than the model has positions for.

    Raises
    ------
    DataError
        With how many there are, and the longest by its id.
    """
    limit = maximum_positions(model)
    if limit is None:
        return
    splits = ["train", "valid"] if config.training.eval_steps is not None else ["train"]
    built = [records for split in splits if (records := prepared.dataset.splits.get(split))]
    too_long = sum(int((records.lengths > limit).sum()) for records in built)
    if too_long:
        longest = max((records[int(records.lengths.argmax())] for records in built), key=lambda one: len(one.input_ids))
        raise DataError(
            f"data: {too_long} records are longer than the {limit} positions of the model",
            why=f"the longest, {longest.record_id}, has {len(longest.input_ids)} tokens",
            fix=f"set data.max_length_tokens={limit} and say with data.on_overlong what happens to longer records",
        )


def refuse_precision_that_does_not_fit(config: TrainConfig, trainable: TrainableModel) -> None:
    """Stop when the 16-bit type of the arithmetic is none for the base's own weights, or for the device.

    Raises
    ------
    ModelError
        If float16 is asked for over bfloat16 weights, or bfloat16 of a device that does not compute it.
    """
    precision, base = config.training.mixed_precision, trainable.base
    if precision == "float16" and base.dtype.value == "bfloat16":
        raise ModelError(
            "training.mixed_precision: float16 over a base in bfloat16",
            why=f"many of its values are beyond the range of float16; bfloat16 is used because: {base.dtype.reason}",
            fix="set model.dtype=float32, or training.mixed_precision=bfloat16",
        )
    if precision == "bfloat16":
        choose_dtype("bfloat16", base.device.value)


def refuse_end_before_checkpoint(config: TrainConfig, checkpoint: Path, step: int, total_steps: int) -> None:
    """Stop when a resume asks for fewer steps than the checkpoint has: they cannot be taken back.

    Raises
    ------
    UserError
        With both numbers of steps.
    """
    if step > total_steps:
        by_epochs = config.training.max_steps is None
        asked = f"the {total_steps} steps of training.epochs" if by_epochs else f"training.max_steps={total_steps}"
        raise UserError(
            f"run.resume_from: the run is at step {step} already, beyond {asked}",
            why=f"{checkpoint.name} holds weights that were trained for {step} steps",
            fix=f"ask for {step} steps or more, resume from an earlier checkpoint "
            "(--resume-from RUN/checkpoints/step-…), or start a new run without --resume-from",
        )


def require_disk(config: TrainConfig, plan: Plan, storage: Storage, resume: ResumePoint) -> None:
    """Stop when the output directory cannot be made, or the checkpoints to come do not fit on its disk.

    A run that goes on is asked only for what it does not have yet.

    Raises
    ------
    UserError
        If nothing can be written where run.output_dir would be.
    DiskSpaceError
        With the bytes needed and the bytes free.
    """
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    place = config.run.output_dir if resume.layout is None else resume.layout.directory
    directory = place
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    # A filesystem without any room at all (/proc, /sys) holds no files of users.
    if not os.access(directory, os.W_OK | os.X_OK) or storage.total_bytes(directory) == 0:
        raise UserError(
            f"run.output_dir: nothing can be written in {directory}",
            why=f"{place} would have to be made there" if directory != place else "the run would have to go on there",
            fix="choose another run.output_dir, or correct the permissions",
        )
    check_disk(plan, directory, storage.free_bytes, _checkpoints_that_stay(resume))


def _checkpoints_that_stay(resume: ResumePoint) -> int:
    """Count the checkpoints that a run goes on with; later ones are set aside, where retention does not reach them."""
    last_step = step_of(resume.checkpoint) if resume.checkpoint is not None else None
    if resume.layout is None or last_step is None:
        return 0
    found = list_checkpoints(resume.layout.checkpoints)
    return sum(step <= last_step and (directory / MANIFEST_NAME).is_file() for step, directory in found)
