"""Judges a model directory from a stranger before any library reads it: links, pipes, pickles, code, absurd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.errors import ModelError
from codex_ml.models.weights_header import TensorEntry, read_header
from codex_ml.runs.manifest import is_pickle
from codex_ml.untrusted import UntrustedFileError, kind_of, read_json

# Of a file that is read as a whole; the largest tokenizer.json known has 35 MB.
MAX_FILE_BYTES = 256 << 20
_MOST_ENTRIES = 10_000
_CONFIG_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")
# What makes transformers import or fetch code, or read weights of another name.
_CODE_KEYS = ("auto_map", "transformers_weights", "custom_generate")
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
# No size of a model passes it, and some sizes are counted out in Python.
_LARGEST_NUMBER = 2**31 - 1
_LARGEST_COUNTS = {"num_labels": 100_000}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_experts", "num_local_experts")
_MOST_LAYERS = 4096
_LARGEST_GROWTH = 1000


def guard_files(path: Path, key: str) -> None:
    """Refuse a model or tokenizer directory whose files lead out of it, are none, are pickles, or are too long.

    Links within the directory are followed, and so are those of a snapshot in a Hugging Face cache into the ``blobs``
    beside it: that is how the cache is made.

    Raises
    ------
    ModelError
        With the first file that is at fault, and why.
    """
    root = _root_of(path)
    pickles = []
    for number, entry in enumerate(sorted(path.iterdir())):
        if number >= _MOST_ENTRIES:
            raise _refused(
                key, path, f"it holds more than {_MOST_ENTRIES} files", "give the model a directory of its own"
            )
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            fix = "put the file itself there: a link may lead to anything on this machine"
            raise _refused(key, path, f"{entry.name} is a link that leads out of the directory", fix)
        try:
            status = entry.stat()
        except OSError as error:
            raise _refused(
                key, path, f"{entry.name} cannot be read: {error.strerror}", "copy the files again"
            ) from error
        kind = kind_of(status.st_mode)
        if kind is not None and not entry.is_dir():
            raise _refused(key, path, f"{entry.name} is {kind}", "remove it")
        if kind is None and is_pickle(entry.name):
            pickles.append(entry.name)
        elif kind is None and entry.suffix != ".safetensors" and status.st_size > MAX_FILE_BYTES:
            raise _refused(key, path, f"{entry.name} is longer than {MAX_FILE_BYTES} bytes", "remove it")
    if pickles:
        raise _refused(
            key,
            path,
            f"there is {', '.join(pickles[:10])}: pickles can run code when they are loaded, and are never read here",
            "delete them (the weights that count are *.safetensors), or leave them out when downloading: "
            "`hf download … --exclude '*.bin' '*.pt' '*.pth' '*.ckpt' '*.h5'`",
        )


def guard_settings(path: Path, key: str) -> None:
    """Refuse settings that name code or kernels to load, files elsewhere, or sizes that no model has.

    Raises
    ------
    ModelError
        With the file and key at fault.
    """
    for name in _CONFIG_FILES:
        if not (path / name).is_file():
            continue
        values = read_settings(path / name, key)
        for place, setting, value in _settings(values):
            if setting in _CODE_KEYS:
                raise ModelError(
                    f"{key}: {path} needs its own Python code ({place} in {name})",
                    why="codex-ml never runs code that comes with a model",
                    fix="use a model whose architecture is part of transformers",
                )
            if setting in _KERNEL_KEYS and isinstance(value, str) and ("/" in value or ":" in value):
                raise ModelError(
                    f"{key}: {path} names a compiled kernel to load ({place} in {name})",
                    why="codex-ml never runs code that comes with a model",
                    fix=f"remove {place} from {name}",
                )
            largest = _LARGEST_COUNTS.get(setting, _LARGEST_NUMBER)
            if type(value) is int and abs(value) > largest and name == "config.json":
                raise ModelError(
                    f"{key}: {place} in {path / name} is beyond any model's size",
                    why=f"the largest number taken is {largest}",
                    fix="copy config.json again from its source",
                )
    _guard_normalizer(path / "tokenizer.json", key)


def guard_weights(path: Path, config: dict[str, Any], key: str) -> list[TensorEntry]:
    """Read the headers of all weights, hold the number of layers against them, and return their tensors.

    Raises
    ------
    ModelError
        If a file is damaged, or the config speaks of more layers than there are tensors.
    """
    entries: list[TensorEntry] = []
    for file in sorted(path.glob("*.safetensors")):
        try:
            entries += read_header(file)
        except (UntrustedFileError, OSError) as error:
            raise ModelError(
                f"{key}: the model in {path} cannot be loaded",
                why=f"{file.name}: {error}",
                fix="copy the file again from its source",
            ) from error
    for place, setting, value in _settings(config):
        if setting in _LAYER_KEYS and type(value) is int and value > min(len(entries), _MOST_LAYERS):
            raise ModelError(
                f"{key}: config.json and weights of {path} do not belong together",
                why=f"{place} is {value}, and the weights have {len(entries)} tensors",
                fix="copy all *.safetensors of the model, and its config.json, again",
            )
    return entries


def read_settings(file: Path, key: str) -> Any:
    """Return the value of a model's JSON file.

    Raises
    ------
    ModelError
        If it is no JSON, too long or too deep.
    """
    try:
        return read_json(file, strict=False)
    except (UntrustedFileError, OSError) as error:
        raise ModelError(
            f"{key}: {file} is not valid JSON", why=str(error), fix="copy the file again from its source"
        ) from error


def _guard_normalizer(file: Path, key: str) -> None:
    """Refuse a normalizer that multiplies a text: replacements of one character by thousands, one behind the other."""
    if not file.is_file():
        return
    try:
        values = read_json(file, MAX_FILE_BYTES, strict=False)
    except (UntrustedFileError, OSError) as error:
        raise ModelError(
            f"{key}: the tokenizer in {file.parent} cannot be read",
            why=f"{file.name}: {error}",
            fix="copy the tokenizer files again from their source",
        ) from error
    growth = 1
    for _, setting, value in _settings(values.get("normalizer") if isinstance(values, dict) else None):
        if setting in ("content", "prepend") and isinstance(value, str):
            growth *= max(1, len(value))
    if growth > _LARGEST_GROWTH:
        raise ModelError(
            f"{key}: the normalizer in {file} makes a text more than {_LARGEST_GROWTH} times as long",
            why="a short record would fill the memory",
            fix="copy tokenizer.json again from its source",
        )


def _settings(value: Any, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield dotted place, name and value of every setting, at any depth (which reading has bounded)."""
    if isinstance(value, dict):
        for name, item in value.items():
            dotted = f"{place}.{name}" if place else str(name)
            yield dotted, str(name), item
            yield from _settings(item, dotted)
    elif isinstance(value, list):
        for item in value:
            yield from _settings(item, place)


def _root_of(path: Path) -> Path:
    """Return the directory that links may lead into: the model's own, or that of its repository in a cache."""
    resolved = path.resolve()
    repository = resolved.parent.parent
    is_snapshot = resolved.parent.name == "snapshots" and repository.name.startswith("models--")
    return repository if is_snapshot else resolved


def _refused(key: str, path: Path, why: str, fix: str) -> ModelError:
    return ModelError(f"{key}: {path} cannot be used as it is", why=why, fix=fix)
