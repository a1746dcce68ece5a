"""Model, adapter and checks before a training run starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from codex_ml.config.schema.adapter import AdapterSection
from codex_ml.config.schema.model import ModelSection
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.schema.training import MixedPrecision
from codex_ml.data.batches import BatchLayout, make_batch
from codex_ml.data.tokenization.tokenizer import TokenizedRecord, answer_ends
from codex_ml.errors import CheckpointError, DataError, ModelError, UserError
from codex_ml.generation.generator import maximum_positions
from codex_ml.io.atomic import Storage
from codex_ml.modeling.determinism import Kernels, find_nondeterministic_ops, fix_workspace
from codex_ml.modeling.forward import configure_batch_layout, supervised_loss
from codex_ml.modeling.modes import enable_gradient_checkpointing
from codex_ml.models.device import choose_dtype
from codex_ml.models.model_files import write_generation_config, write_model, write_tokenizer
from codex_ml.models.registry import BaseModel, load_base_model
from codex_ml.peft.adapter_files import restore_adapter, write_adapter
from codex_ml.peft.peft_adapter import TrainableShare, apply_lora, trainable_share
from codex_ml.recipes.preparation import Prepared, open_digests
from codex_ml.recipes.train.resume import ResumePoint
from codex_ml.runs.checkpoints import list_checkpoints, step_of
from codex_ml.runs.digest_cache import DigestCache
from codex_ml.runs.manifest import MANIFEST_NAME
from codex_ml.training.optimizer import computing_in
from codex_ml.training.plan import Plan, check_disk

# Runs a computation and returns the names of kernels that have no deterministic form.
FindRefused = Callable[[Callable[[], None]], tuple[str, ...]]


def prepare_process(config: TrainConfig, environment: MutableMapping[str, str]) -> None:
    """Set what the libraries read once, before the first of them starts CUDA."""
    if config.training.deterministic:
        fix_workspace(environment)


def check_determinism(
    config: TrainConfig,
    records: Sequence[TokenizedRecord],
    trainable: TrainableModel,
    find_nondeterministic_ops: FindRefused = find_nondeterministic_ops,
) -> TrainableModel:
    """Return the model with the kernels that refuse to be deterministic named; nothing is tried unless asked for.

    What is tried is a function of the data, so that a resumed run computes with the same kernels. It changes neither
    weights nor gradients; the random draws that it makes are undone by the seed or the checkpoint.
    """
    if not config.training.deterministic:
        return trainable
    layout = trainable.kernels.layout.kind
    refused = find_nondeterministic_ops(
        lambda: compute_once(trainable.model, records, config.training.mixed_precision, layout)
    )
    return replace(trainable, kernels=replace(trainable.kernels, refused=refused))


def compute_once(
    model: nn.Module,
    records: Sequence[TokenizedRecord],
    precision: MixedPrecision = "none",
    layout: BatchLayout = "padded",
) -> None:
    """Run forward and backward pass on the longest record alone, and together with the shortest one."""
    device = next(model.parameters()).device
    ordered = sorted(records, key=lambda record: len(record.input_ids))
    was_training = model.training
    model.train()
    try:
        for batch in (ordered[-1:], [ordered[0], ordered[-1]]):
            with computing_in(precision, device.type):
                loss = supervised_loss(model, make_batch(batch, 0, layout).to(device))
            torch.autograd.backward(loss.loss_sum)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)


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


CheckpointKind = Literal["adapter", "model"]


@dataclass(frozen=True)
class TrainableModel:
    """A model ready to be trained, and how it is written and restored.

    The average of its weights is written as an adapter alone, whose tokenizer lies beside it, or as a whole model
    directory, which is none without a tokenizer.
    """

    model: nn.Module
    base: BaseModel
    kind: CheckpointKind
    share: TrainableShare
    write_weights: Callable[[Path], None]
    write_averaged: Callable[[Path], None]
    restore_weights: Callable[[Path], None]
    digests: DigestCache
    kernels: Kernels


def training_model_config(config: TrainConfig) -> ModelSection:
    """Return what is asked of the base, in a number format that can be trained.

    Raises
    ------
    ModelError
        If weights of 16 bits would be trained themselves.
    """
    model_config = config.model
    if config.adapter.kind != "none":
        return model_config
    if model_config.dtype == "bfloat16":
        raise ModelError(
            "model.dtype: bfloat16 weights cannot be trained themselves",
            why="an optimizer step is smaller than bfloat16 can represent, and would be lost",
            fix="use model.dtype=float32 (or auto), or an adapter (adapter.kind=lora), which stays in float32",
        )
    return model_config.model_copy(update={"dtype": "float32"})


def wrap_with_adapter(model: PreTrainedModel, adapter: AdapterSection) -> PeftModel:
    """Return a base with the adapter of a config around it.

    Raises
    ------
    AdapterError
        If the adapter cannot be had as asked.
    """
    settings = adapter.model_dump()
    del settings["kind"]
    return apply_lora(model, settings)


def build_trainable_model(config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> TrainableModel:
    """Load the base of a config and put its adapter on, or leave all weights trainable with ``adapter.kind: none``.

    Raises
    ------
    ModelError, AdapterError
        If the model or the adapter cannot be had as asked.
    """
    trains_all, model_config = config.adapter.kind == "none", training_model_config(config)
    digests = open_digests(config)
    base = load_base_model(model_config, tokenizer, config.run.seed, digests)
    attention = _attention(base.model)
    layout = configure_batch_layout(base.model, model_config.batch_layout)
    kernels = Kernels(base.device.value, attention, config.training.deterministic, layout=layout)
    if trains_all:
        trainable = _full_finetune(base, tokenizer, digests, kernels)
    else:
        # The adapter's first values come from the seed alone, whatever was drawn while the base was loaded.
        torch.manual_seed(config.run.seed)
        trainable = _lora(base, tokenizer, config.adapter, digests, kernels)
    if config.training.gradient_checkpointing:
        # Only now: peft would prepare a base that does it already for the variant with reentry.
        enable_gradient_checkpointing(base.model)
    return trainable


def _attention(model: PreTrainedModel) -> str:
    # transformers has no public name for what it chose.
    return str(getattr(model.config, "_attn_implementation", "unknown"))


def _full_finetune(
    base: BaseModel, tokenizer: PreTrainedTokenizerBase, digests: DigestCache, kernels: Kernels
) -> TrainableModel:
    model = base.model

    def write(directory: Path) -> None:
        write_model(model, directory)
        write_tokenizer(tokenizer, directory)
        write_generation_config(tokenizer, answer_ends(tokenizer), directory)

    def restore(directory: Path) -> None:
        _restore_whole(model, directory)

    return TrainableModel(model, base, "model", trainable_share(model), write, write, restore, digests, kernels)


def _lora(
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: AdapterSection,
    digests: DigestCache,
    kernels: Kernels,
) -> TrainableModel:
    model = wrap_with_adapter(base.model, adapter)

    def write_alone(directory: Path) -> None:
        write_adapter(model, directory)

    def write(directory: Path) -> None:
        write_alone(directory)
        write_tokenizer(tokenizer, directory)
        write_generation_config(tokenizer, answer_ends(tokenizer), directory)

    def restore(directory: Path) -> None:
        restore_adapter(model, directory)

    return TrainableModel(model, base, "adapter", trainable_share(model), write, write_alone, restore, digests, kernels)


def _restore_whole(model: PreTrainedModel, directory: Path) -> None:
    """Put saved weights into a model of the same shape; a tensor on one side only is an error, but for tied ones."""
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(directory.glob("model*.safetensors")):
            tensors |= load_file(file)
        wrong = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
        if wrong:
            raise RuntimeError(f"{wrong[0]} is stored as {str(tensors[wrong[0]].dtype).removeprefix('torch.')}")
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError) as error:
        # A header that lies, or tensors of another shape: the manifest proves who wrote neither.
        raise CheckpointError(
            f"the weights in {directory} do not fit this model",
            why=str(error).splitlines()[0],
            fix="resume with the model settings of the run",
        ) from error
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    absent = [name for name in missing if name not in tied]
    if absent or unexpected:
        raise CheckpointError(
            f"the weights in {directory} do not fit this model",
            why=f"{len(absent)} missing, {len(unexpected)} unexpected, first {(absent + list(unexpected))[0]}",
            fix="resume with the model settings of the run",
        )
