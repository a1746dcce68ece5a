"""Runs a loaded model on two tokens, so that a config.json that no forward pass can follow is refused when loading."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from codex_ml.errors import ModelError, is_out_of_memory


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
        ) from error
    finally:
        model.train(was_training)


def _require_logits(outputs: Any, positions: int) -> None:
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3 or logits.shape[1] != positions:
        raise ValueError("it gives no logits for each position (return_dict, or an architecture for another task)")
