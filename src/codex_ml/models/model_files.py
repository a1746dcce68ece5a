"""What a checkpoint holds beside training state: model, tokenizer with its template, and generation settings."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from codex_ml.io.atomic import json_bytes
from codex_ml.runs.tokenizer_files import TOKENIZER_FILES


def write_model(model: PreTrainedModel, directory: Path) -> None:
    """Write a whole model as safetensors with its config; tied weights once.

    The generation settings that came with the model are not written: `write_generation_config` writes those of the run,
    and transformers refuses to write some that it reads.
    """
    settings = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(directory, safe_serialization=True)
    finally:
        model.generation_config = settings
    _forget_origin(directory / "config.json")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the tokenizer's files and its chat template, and nothing whose name is not known.

    transformers writes files under names that come from the tokenizer's directory, such as extra chat templates. They
    are made in a folder of their own, and only known names are moved out of it.
    """
    known = {*TOKENIZER_FILES, *tokenizer.vocab_files_names.values()}
    with TemporaryDirectory(dir=directory, prefix=".tokenizer.") as staged:
        tokenizer.save_pretrained(staged)
        for file in sorted(Path(staged).iterdir()):
            if file.name in known and file.is_file() and not file.is_symlink():
                file.rename(directory / file.name)


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
