"""What a local model directory must hold, checked before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.errors import ModelError
from codex_ml.io.atomic import bytes_digest, file_digest, json_bytes
from codex_ml.io.untrusted import read_json
from codex_ml.models.directory_guard import guard_files, guard_settings, guard_weights, read_settings
from codex_ml.runs.manifest import is_pickle
from codex_ml.runs.tokenizer_files import TOKENIZER_FILES, extra_tokenizer_files

# Beside the weights in a checkpoint of `adapter.kind: none`; the optimizer's state is no part of the model.
_TRAINING_STATE = "training_state.safetensors"
_SHARD_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HOW_TO_BRING = (
    "on a machine with network: `hf download ORGANISATION/MODEL --local-dir DIR` (safetensors), copy DIR here, "
    "and set model.path to it"
)


def check_model_directory(path: Path, key: str = "model.path") -> dict[str, Any]:
    """Check that a directory holds a causal LM that can be loaded safely, and return its config.json.

    Raises
    ------
    ModelError
        If the directory or a part of it is absent (what was looked for, where, what is there, how to bring it), if
        weights exist only as pickles, or if the model would need its own Python code.
    """
    if not path.is_dir():
        raise ModelError(
            f"{key}: no model directory at {path}",
            why=_what_is_near(path),
            fix=_HOW_TO_BRING,
            code="MODEL_DIRECTORY_MISSING",
        )
    names = sorted(entry.name for entry in path.iterdir())
    if "adapter_config.json" in names:
        # transformers would follow it to whatever base model it names, on this disk or on the hub.
        raise ModelError(
            f"{key}: {path} holds an adapter, not a base model",
            why=f"there is {_listing(names)}",
            fix="name the base model here, and the adapter with --checkpoint",
            code="MODEL_IS_ADAPTER",
        )
    config = _read_config(path, names, key)
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if is_pickle(name)]
        why = f"looked for *.safetensors; there is {_listing(names)}"
        if pickles:
            why = f"its weights are pickles ({', '.join(pickles)}), which can run code when loaded"
        raise ModelError(
            f"{key}: no safetensors weights in {path}", why=why, fix=_HOW_TO_BRING, code="MODEL_WEIGHTS_MISSING"
        )
    _check_shards(path, names, key)
    check_tokenizer_directory(path, key)
    guard_weights(path, config, key)
    return config


def check_tokenizer_directory(path: Path, key: str) -> None:
    """Check that a directory holds a tokenizer.

    Raises
    ------
    ModelError
        If none of the known tokenizer files is there, or a file of the directory must not be read.
    """
    if not path.is_dir():
        raise ModelError(
            f"{key}: no tokenizer directory at {path}",
            why=_what_is_near(path),
            fix=_HOW_TO_BRING,
            code="TOKENIZER_DIRECTORY_MISSING",
        )
    names = sorted(entry.name for entry in path.iterdir())
    if not any(name in names for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{key}: no tokenizer in {path}",
            why=f"looked for {', '.join(_TOKENIZER_FILES)}; there is {_listing(names)}",
            fix="copy the tokenizer files of the model into the directory",
            code="TOKENIZER_FILES_MISSING",
        )
    guard_files(path, key)
    guard_settings(path, key)


def model_digest(path: Path, digest_of: Callable[[Path], str] = file_digest) -> str:
    """Return one digest over what decides the model's function: its config and weights.

    The tokenizer is digested apart (`tokenizer_files_digest`), so that a message can say which of the two changed.

    Parameters
    ----------
    path : Path
        The model directory.
    digest_of : callable
        Gives the digest of a file; a cache may supply it.
    """
    weights = [file for file in sorted(path.glob("*.safetensors")) if file.name != _TRAINING_STATE]
    files = [path / "config.json", *weights]
    lines = [f"{file.name} {digest_of(file)}\n" for file in files if file.is_file()]
    return bytes_digest("".join(lines).encode("utf-8"))


def tokenizer_files_digest(directory: Path, eos_token_id: int | None) -> str:
    """Return one digest over the usual files that decide how text becomes ids, and the end-of-sequence id in use.

    Runs of every version hold it, so its formula must not change; `extra_tokenizer_digest` covers the other files.
    """
    content = {name: file_digest(directory / name) for name in TOKENIZER_FILES if (directory / name).is_file()}
    return bytes_digest(json_bytes({**content, "eos_token_id": eos_token_id}))


def extra_tokenizer_digest(directory: Path) -> str:
    """Return one digest over the other files that a tokenizer may read: further formats and extra chat templates.

    Older runs do not hold it; it is compared where it was recorded.
    """
    content = {name: file_digest(directory / name) for name in extra_tokenizer_files(directory)}
    return bytes_digest(json_bytes(content))


def _check_shards(path: Path, names: list[str], key: str) -> None:
    """Check that every file that a sharded model's index names is there; half a download is no model."""
    if _SHARD_INDEX not in names:
        return
    try:
        shards = set(read_json(path / _SHARD_INDEX)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{key}: {path / _SHARD_INDEX} is damaged", why=str(error), fix=_HOW_TO_BRING, code="MODEL_INDEX_DAMAGED"
        ) from error
    missing = sorted(str(shard) for shard in shards if shard not in names)
    if missing:
        raise ModelError(
            f"{key}: {len(missing)} of {len(shards)} weight files are missing in {path}",
            why=f"{_SHARD_INDEX} names {_listing(missing)}; a copy or download broke off",
            fix=_HOW_TO_BRING,
            code="MODEL_SHARDS_MISSING",
        )


def _read_config(path: Path, names: list[str], key: str) -> dict[str, Any]:
    config_path = path / "config.json"
    if not config_path.is_file():
        raise ModelError(
            f"{key}: no config.json in {path}",
            why=f"a model directory holds config.json, *.safetensors and a tokenizer; there is {_listing(names)}",
            fix=_HOW_TO_BRING,
            code="MODEL_CONFIG_MISSING",
        )
    config = read_settings(config_path, key)
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"{key}: {config_path} names no model_type", fix=_HOW_TO_BRING, code="MODEL_TYPE_MISSING")
    return config


def _listing(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "nothing"


def _what_is_near(path: Path) -> str:
    if path.is_file():
        return "that is a file; a directory with config.json, *.safetensors and a tokenizer is needed"
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    return f"it does not exist; {parent} holds {_listing(sorted(entry.name for entry in parent.iterdir()))}"
