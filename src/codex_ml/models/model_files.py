"""What a checkpoint holds beside training state: model, tokenizer with its template, and generation settings."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from codex_ml.storage import json_bytes


def write_model(model: PreTrainedModel, directory: Path) -> None:
    """Write a whole model as safetensors with its config; tied weights once."""
    model.save_pretrained(directory, safe_serialization=True)
    _forget_origin(directory / "config.json")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the tokenizer's files and its chat template."""
    tokenizer.save_pretrained(directory)


def write_generation_config(
    tokenizer: PreTrainedTokenizerBase, stop_token_ids: Collection[int], directory: Path
) -> None:
    """Write generation settings that end where training taught the model to end.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Gives the padding token.
    stop_token_ids : collection of int
        What ends an answer: end-of-sequence, and with what the chat template ends a turn.
    directory : Path
        Where the file goes.
    """
    ends = sorted(stop_token_ids)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    (directory / "generation_config.json").write_bytes(json_bytes(config.to_diff_dict()))


def _forget_origin(config_path: Path) -> None:
    """Drop the path of this machine from a config, should transformers have written one."""
    values = json.loads(config_path.read_text("utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config_path.write_bytes(json_bytes(values))
