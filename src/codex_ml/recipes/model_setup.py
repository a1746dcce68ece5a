"""The model a training run works on: base, adapter or all of it, and what of it goes into a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from codex_ml.data.tokenize import answer_ends
from codex_ml.errors import CheckpointError, ModelError
from codex_ml.modeling.gradient_checkpointing import enable_gradient_checkpointing
from codex_ml.modeling.kernels import Kernels
from codex_ml.modeling.layout import lay_out
from codex_ml.models.model_files import write_generation_config, write_model, write_tokenizer
from codex_ml.models.registry import BaseModel, load_base_model
from codex_ml.peft.adapter_files import restore_adapter, write_adapter
from codex_ml.peft.peft_adapter import TrainableShare, apply_lora, trainable_share
from codex_ml.recipes.preparation import open_digests
from codex_ml.runs.digest_cache import DigestCache

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


def trainable_wish(config: TrainConfig) -> ModelSection:
    """Return what is asked of the base, in a number format that can be trained.

    Raises
    ------
    ModelError
        If weights of 16 bits would be trained themselves.
    """
    wish = config.model
    if config.adapter.kind != "none":
        return wish
    if wish.dtype == "bfloat16":
        raise ModelError(
            "model.dtype: bfloat16 weights cannot be trained themselves",
            why="an optimizer step is smaller than bfloat16 can represent, and would be lost",
            fix="use model.dtype=float32 (or auto), or an adapter (adapter.kind=lora), which stays in float32",
        )
    return wish.model_copy(update={"dtype": "float32"})


def put_adapter_on(model: PreTrainedModel, adapter: AdapterSection) -> PeftModel:
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
    trains_all, wish = config.adapter.kind == "none", trainable_wish(config)
    digests = open_digests(config)
    base = load_base_model(wish, tokenizer, config.run.seed, digests)
    attention = _attention(base.model)
    layout = lay_out(base.model, wish.batch_layout)
    kernels = Kernels(base.device.value, attention, config.training.deterministic, layout=layout)
    if trains_all:
        trainable = _whole(base, tokenizer, digests, kernels)
    else:
        # The adapter's first values come from the seed alone, whatever was drawn while the base was loaded.
        torch.manual_seed(config.run.seed)
        trainable = _adapted(base, tokenizer, config.adapter, digests, kernels)
    if config.training.gradient_checkpointing:
        # Only now: peft would prepare a base that does it already for the variant with reentry.
        enable_gradient_checkpointing(base.model)
    return trainable


def _attention(model: PreTrainedModel) -> str:
    # transformers has no public name for what it chose.
    return str(getattr(model.config, "_attn_implementation", "unknown"))


def _whole(
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


def _adapted(
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: AdapterSection,
    digests: DigestCache,
    kernels: Kernels,
) -> TrainableModel:
    model = put_adapter_on(base.model, adapter)

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
