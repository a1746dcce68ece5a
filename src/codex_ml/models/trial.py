"""Trial runs of an untrusted model: two tokens, and its tokenizer, before it is used."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from codex_ml.errors import ModelError, is_out_of_memory
from codex_ml.io.limits import LimitExceededError, limited
from codex_ml.models.directory_guard import TensorEntry, guard_weights, is_computed, read_settings


def try_forward(model: PreTrainedModel, directory: Path, key: str) -> None:
    """Compute two tokens in training mode, then in evaluation mode with the key-value cache.

    Settings such as ``return_dict: false`` or ``attention_dropout: 2`` pass every check of transformers and fail in the
    first forward pass. The random state of the process and the mode of the model stay as they were.

    Parameters
    ----------
    model : PreTrainedModel
        On its device.
    directory : Path
        Where it was loaded from, for messages.
    key : str
        Of the config, for messages.

    Raises
    ------
    ModelError
        If a pass fails, or gives no logits of shape [1, positions, vocabulary].
    """
    rows = model.get_input_embeddings().get_parameter("weight").shape[0]
    device = next(model.parameters()).device
    accepted = inspect.signature(model.forward).parameters
    ids = torch.tensor([[0, rows - 1]], device=device)  # [batch, sequence]
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            model.train()
            without_cache = {"use_cache": False} if "use_cache" in accepted else {}
            _require_logits(model(input_ids=ids, **without_cache), 2)
            model.train(False)
            if "past_key_values" in accepted:
                mask = torch.ones_like(ids)
                first = model(input_ids=ids[:, :1], attention_mask=mask[:, :1], use_cache=True)
                _require_logits(first, 1)
                cache = first.past_key_values
                second = model(input_ids=ids[:, 1:], attention_mask=mask, past_key_values=cache, use_cache=True)
                _require_logits(second, 1)
        # Writing a checkpoint of the whole model does this, hours later.
        if hasattr(model.config, "validate"):
            model.config.validate()
        model.config.to_json_string()
    except Exception as error:  # whatever a model raises on settings that it cannot follow
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{key}: the model in {directory} cannot compute two tokens",
            why=f"with its config.json, the forward pass fails: {' '.join(str(error).split())[:500]}",
            fix="copy config.json again from its source",
            code="MODEL_FORWARD_FAILED",
        ) from error
    finally:
        model.train(was_training)


def _require_logits(outputs: Any, positions: int) -> None:
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3 or logits.shape[1] != positions:
        raise ValueError("it gives no logits for each position (return_dict, or an architecture for another task)")


# Building 7 billion parameters without numbers takes one second and 50 MB.
_CPU_SECONDS, _EXTRA_BYTES = 60.0, 8 << 30
# A head that is tied in the file may be untied in memory, and masks and tables are in no file.
_LARGEST_SHARE, _FREE_ELEMENTS = 2, 500_000_000
# Formats of weights in a file, and what torch calls them.
FLOAT_FORMATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Generator states in training_state.safetensors, beside the weights in a checkpoint of all weights. By the names of the
# tensors and not of the file, which an index could name as a shard: no weight has such a name.
_GENERATOR_STATES = "random."


def rehearse(directory: Path, key: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the model of a directory with its parameters on the meta device, where they have shapes and no numbers.

    Refused is a config whose model would be far larger than its weights: what is missing would be made up in memory.

    Parameters
    ----------
    directory : Path
        Holds ``config.json`` and weights.
    key : str
        Of the config, for messages.
    dtype : torch.dtype, optional
        Of the parameters; None: what the directory says.

    Raises
    ------
    ModelError
        If it would (both numbers are named), if building it has no bounds, or if a weight is stored in a format that is
        not floating point.
    Exception
        Whatever transformers raises where it does not understand the config.
    """
    entries = guard_weights(directory, read_settings(directory / "config.json", key), key)
    held = sum(entry.elements for entry in entries)
    try:
        with limited(_CPU_SECONDS, _EXTRA_BYTES), torch.device("meta"):
            config = read_config(directory)
            shell: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype, trust_remote_code=False
            )
            wanted = sum(tensor.numel() for tensor in (*shell.parameters(), *shell.buffers()))
    except (LimitExceededError, MemoryError) as error:
        raise ModelError(
            f"{key}: config.json of {directory} describes a model that cannot be built",
            why="without any of its numbers it already takes too much time or memory",
            fix="copy config.json again from its source",
            code="MODEL_NOT_BUILDABLE",
        ) from error
    if wanted > _LARGEST_SHARE * held + _FREE_ELEMENTS:
        raise ModelError(
            f"{key}: config.json and weights of {directory} do not belong together",
            why=f"config.json describes {wanted:,} numbers, and the weights hold {held:,}",
            fix="copy all *.safetensors of the model, and its config.json, again",
            code="MODEL_CONFIG_WEIGHTS_MISMATCH",
        )
    if not isinstance(getattr(config, "quantization_config", None), dict):
        _check_formats(entries, shell, directory, key)
    return shell


def read_config(directory: Path) -> PretrainedConfig:
    """Return config.json as transformers reads it.

    Raises
    ------
    Exception
        Whatever transformers raises where it does not understand the file.
    """
    config: PretrainedConfig = AutoConfig.from_pretrained(  # nosec B615: a directory, no hub
        directory, local_files_only=True, trust_remote_code=False
    )
    return config


def _check_formats(entries: Sequence[TensorEntry], shell: PreTrainedModel, directory: Path, key: str) -> None:
    """Stop at a weight that is not stored in floating point: transformers would convert its bits and report nothing."""
    tensors = {**dict(shell.named_parameters()), **dict(shell.named_buffers())}
    whole = tuple(f".{name}" for name, tensor in tensors.items() if not tensor.is_floating_point())
    wrong = [
        entry
        for entry in entries
        if entry.dtype not in FLOAT_FORMATS
        and not is_computed(entry.name)
        and not f".{entry.name}".endswith(whole)
        and not entry.name.startswith(_GENERATOR_STATES)
    ]
    if wrong:
        first = wrong[0]
        raise ModelError(
            f"{key}: {first.name} in the weights of {directory} is stored as {first.dtype}",
            why=f"a weight is one of {', '.join(FLOAT_FORMATS)}; {len(wrong)} tensors are not, and config.json has no "
            "quantization_config that would say how they are read",
            fix="copy all *.safetensors of the model, and its config.json, again",
            code="MODEL_WEIGHTS_BAD_DTYPE",
        )


def stored_dtype(directory: Path, key: str) -> str | None:
    """Return the number format in which all weights of a directory lie, as torch names it; None where they differ.

    Raises
    ------
    ModelError
        If the header of a file is damaged.
    """
    entries = guard_weights(directory, read_settings(directory / "config.json", key), key)
    found = {entry.dtype for entry in entries}
    return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(found.pop()) if len(found) == 1 else None
