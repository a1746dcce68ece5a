"""Adapter files read and written, and several adapters on one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel

from codex_ml.errors import CheckpointError, UserError
from codex_ml.io.atomic import json_bytes
from codex_ml.peft.adapter_config import CONFIG_NAME, read_adapter_config

WEIGHTS_NAME = "adapter_model.safetensors"


def write_adapter(model: PeftModel, directory: Path) -> None:
    """Write the adapter's weights and config, and nothing of the base model.

    The base is named nowhere in them: its digest stands in the manifest, its place in the run's config. (peft itself
    would write the path of this machine.)
    """
    # False: "auto" would ask the model hub whether the embedding was resized.
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    (directory / WEIGHTS_NAME).write_bytes(save(contiguous, metadata={"format": "pt"}))
    (directory / CONFIG_NAME).write_bytes(json_bytes(_portable_config(model.peft_config["default"])))


def read_adapter_tensors(directory: Path) -> dict[str, Tensor]:
    """Read the adapter's weights on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds a tensor that is not floating point or a value that is not finite.
    """
    try:
        tensors = load_file(directory / WEIGHTS_NAME)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"cannot read {directory / WEIGHTS_NAME}", why=str(error)) from error
    # Formats of 8 bits and less hold no adapter; torch would convert integers and report nothing.
    wrong = [name for name, value in tensors.items() if not value.is_floating_point() or value.element_size() < 2]
    if wrong:
        stored = str(tensors[wrong[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{wrong[0]} in {directory / WEIGHTS_NAME} is stored as {stored}",
            why=f"weights of an adapter are float64, float32, float16 or bfloat16; {len(wrong)} tensors are not",
            fix="use an earlier checkpoint",
        )
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{directory / WEIGHTS_NAME} holds values that are not finite",
            why=f"{len(broken)} tensors, first {broken[0]}",
            fix="use an earlier checkpoint",
        )
    return tensors


def restore_adapter(model: PeftModel, directory: Path) -> None:
    """Put saved adapter weights into a model that already carries an adapter of the same shape.

    Raises
    ------
    CheckpointError
        If names or shapes differ.
    """
    tensors = read_adapter_tensors(directory)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    check_shapes(directory, tensors, expected)
    set_peft_model_state_dict(model, tensors)


def load_adapter(base: PreTrainedModel, directory: Path) -> PeftModel:
    """Put a saved adapter onto a base model, for evaluation.

    Raises
    ------
    CheckpointError
        If the adapter does not fit the base (the first name and both shapes are given), or its settings are not
        those of a plain LoRA.
    """
    config = read_adapter_config(directory)
    tensors = read_adapter_tensors(directory)
    widest = max((max(tensor.shape, default=0) for tensor in tensors.values()), default=0)
    if max([config.r, *(config.rank_pattern or {}).values()]) > widest:
        raise CheckpointError(
            f"the adapter in {directory} is not that of its weights",
            why=f"its rank is larger than any side of its tensors, {widest}",
            fix="name another checkpoint of the run",
        )
    try:
        model = PeftModel(base, config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"the adapter in {directory} does not fit this base model",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="use the base model the adapter was trained on (model.path)",
        ) from error
    try:
        check_shapes(directory, tensors, get_peft_model_state_dict(model, save_embedding_layers=False))
    except CheckpointError:
        # The caller's base is wrapped already, and must come back as it was.
        model.unload()
        raise
    set_peft_model_state_dict(model, tensors)
    # peft's inference mode leaves biases that were trained still trainable.
    model.requires_grad_(False)
    model.eval()
    return model


@contextmanager
def temporary_adapter(base: PreTrainedModel, directory: Path) -> Iterator[PeftModel]:
    """Put a saved adapter onto a base model for the length of a block; after it the base is as it was.

    An adapter trained with `bias` holds biases of the base itself, which taking it off alone would not give back.

    Raises
    ------
    CheckpointError
        As `load_adapter`.
    """
    biases = {name: bias.detach().clone() for name, bias in base.named_parameters() if name.endswith("bias")}
    model = load_adapter(base, directory)
    try:
        yield model
    finally:
        model.unload()
        with torch.no_grad():
            for name, bias in biases.items():
                base.get_parameter(name).copy_(bias)


def _portable_config(config: PeftConfig) -> dict[str, Any]:
    values = config.to_dict()
    values["base_model_name_or_path"] = None
    values["inference_mode"] = True
    # Sets have no order of their own; sorted, the same adapter always gives the same bytes.
    return {key: sorted(value) if isinstance(value, set) else value for key, value in sorted(values.items())}


def check_shapes(directory: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise a `CheckpointError` where saved tensors are not those of a model, by name and shape."""
    differing = sorted(set(tensors) ^ set(expected))
    if differing:
        raise CheckpointError(
            f"the adapter in {directory} does not fit this model",
            why=f"{len(differing)} tensors are on one side only, first {differing[0]}",
            fix="use the base model and adapter settings it was trained with",
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"the adapter in {directory} does not fit this model",
                why=f"{name} has shape {list(tensor.shape)}, the model needs {list(expected[name].shape)}",
                fix="use the base model and adapter settings it was trained with",
            )


class AdapterSet:
    """A base model and its adapters by name.

    Parameters
    ----------
    base : PreTrainedModel
        Shared by all of them; wrapped, not changed.
    directories : mapping
        Name -> directory of a plain LoRA adapter.

    Raises
    ------
    CheckpointError
        If one does not fit the base.
    UserError
        If one was trained with biases: those belong to the base, which all share.
    """

    def __init__(self, base: PreTrainedModel, directories: Mapping[str, Path]) -> None:
        self._base: nn.Module = base
        self._model: PeftModel | None = None
        # peft's own name of each; those of users may hold dots, which peft's may not.
        self._inner: dict[str, str] = {}
        for name, directory in directories.items():
            if read_adapter_config(directory).bias != "none":
                raise UserError(
                    f"the adapter {name} was trained with biases of the base (adapter.bias)",
                    why="the base is shared by all that is served, and its biases can be those of one only",
                    fix="merge it into a model of its own, or serve an adapter trained with adapter.bias=none",
                )
            self._add(name, directory)

    def _add(self, name: str, directory: Path) -> None:
        if self._model is None:
            assert isinstance(self._base, PreTrainedModel)
            self._model = load_adapter(self._base, directory)
            self._inner[name] = "default"
            return
        inner = f"adapter_{len(self._inner)}"
        config, tensors = read_adapter_config(directory), read_adapter_tensors(directory)
        try:
            self._model.add_adapter(inner, config)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"the adapter in {directory} does not fit this base model",
                why=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="use an adapter that was trained on this base",
            ) from error
        check_shapes(
            directory,
            tensors,
            get_peft_model_state_dict(self._model, adapter_name=inner, save_embedding_layers=False),
        )
        set_peft_model_state_dict(self._model, tensors, adapter_name=inner)
        self._inner[name] = inner
        self._model.requires_grad_(False)
        self._model.eval()

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """Give the model with one adapter, or without any, for the length of a block."""
        if self._model is None:
            yield self._base
        elif name is None:
            with self._model.disable_adapter():
                yield self._model
        else:
            self._model.set_adapter(self._inner[name], inference_mode=True)
            yield self._model
