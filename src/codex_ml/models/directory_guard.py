"""Checks of an untrusted model directory before anything is loaded from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from codex_ml.errors import ModelError
from codex_ml.io.untrusted import (
    MAX_MODEL_FILE_BYTES,
    UntrustedFileError,
    kind_of,
    open_regular,
    parse_json,
    read_json,
    settings_of,
)
from codex_ml.models.tokenizer_guard import guard_tokenizer
from codex_ml.runs.manifest import is_pickle
from codex_ml.runs.tokenizer_files import EXTRA_TEMPLATES, is_extra_template

# The format allows 100 MB; a model of ten thousand tensors has one.
MAX_HEADER_BYTES = 32 << 20
_LENGTH_BYTES = 8
_FORMATS_BY_BITS = {
    4: ("F4",),
    6: ("F6_E2M3", "F6_E3M2"),
    8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"),
    16: ("I16", "U16", "F16", "BF16"),
    32: ("I32", "U32", "F32"),
    64: ("I64", "U64", "F64", "C64"),
}
_BITS = {name: bits for bits, names in _FORMATS_BY_BITS.items() for name in names}
# Last parts of names of tables and masks that older versions of transformers wrote beside the weights. They are
# computed from the config when a model is built. The dot keeps weights such as ``c_attn.bias`` out.
_COMPUTED = (
    ".position_ids",
    ".rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file, as its header names it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def is_computed(name: str) -> bool:
    """Tell whether a tensor of that name holds no weight, but a table or mask that follows from the config."""
    return f".{name}".endswith(_COMPUTED)


def read_header(path: Path) -> list[TensorEntry]:
    """Return the tensors of a safetensors file (format: github.com/huggingface/safetensors, "Format").

    Raises
    ------
    UntrustedFileError
        If the header is longer than any, no JSON, or its tensors do not fill the file without gap or overlap.
    OSError
        If the file cannot be read.
    """
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise UntrustedFileError("its header is longer than the file, which is damaged or cut off")
        if length > MAX_HEADER_BYTES:
            raise UntrustedFileError(f"its header has {length} bytes, and that of no model has {MAX_HEADER_BYTES}")
        header = parse_json(handle.read(length))
    if not isinstance(header, dict):
        raise UntrustedFileError("its header is no JSON object")
    header.pop("__metadata__", None)
    end = 0
    entries = []
    for name, value in sorted(header.items(), key=lambda item: _begin(item[1])):
        entry, begin, stop = _entry(name, value)
        if begin != end:
            raise UntrustedFileError(f"tensor {name[:100]!r} overlaps another, or leaves a gap")
        end = stop
        entries.append(entry)
    if end != size - _LENGTH_BYTES - length:
        raise UntrustedFileError("its tensors do not fill the file, which is damaged or cut off")
    return entries


def _begin(value: Any) -> int:
    offsets = value.get("data_offsets") if isinstance(value, dict) else None
    return offsets[0] if _are_sizes(offsets) and offsets else 0


def _entry(name: str, value: Any) -> tuple[TensorEntry, int, int]:
    fields = value if isinstance(value, dict) else {}
    shape, offsets, dtype = fields.get("shape"), fields.get("data_offsets"), fields.get("dtype")
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2 and isinstance(dtype, str)):
        raise UntrustedFileError(f"tensor {name[:100]!r} has no shape, place or number format")
    entry = TensorEntry(name, dtype, tuple(shape))
    if entry.elements * _BITS.get(dtype, 0) != (offsets[1] - offsets[0]) * 8:
        raise UntrustedFileError(f"tensor {name[:100]!r} has another size than its shape and number format say")
    return entry, offsets[0], offsets[1]


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)


MAX_TEMPLATE_BYTES = 1 << 20
_MOST_BYTES = 1 << 30
_MOST_ENTRIES, _MOST_TEMPLATES = 10_000, 64
_CONFIG_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")
# What makes transformers import or fetch code, or read weights of another name.
_CODE_KEYS = ("auto_map", "transformers_weights", "custom_generate")
# What makes transformers read other files than those that are checked and digested.
_FILE_KEYS = ("configuration_files", "fast_tokenizer_files", "gguf_file")
# Of tokenizer_config.json: as text, these are names of files.
_VOCABULARY_KEYS = ("vocab", "merges")
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
# No size of a model passes it, and some sizes are counted out in Python.
_LARGEST_NUMBER = 2**31 - 1
_LARGEST_COUNTS = {"num_labels": 100_000}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_experts", "num_local_experts")
_MOST_LAYERS = 4096


def guard_files(path: Path, key: str) -> None:
    """Refuse a model or tokenizer directory by the kinds, sizes and number of the files that may be read.

    Links within the directory are followed, and so are those of a snapshot in a Hugging Face cache into the ``blobs``
    beside it: that is how the cache is made. Below the directory, transformers reads the files of one folder only,
    ``additional_chat_templates``; other folders (``.git``, ``.venv``, ``lost+found``) are not opened and not listed.

    Raises
    ------
    ModelError
        With the first file that is at fault, and why.
    """
    root = _root_of(path)
    pickles: list[str] = []
    read_bytes = templates = 0
    for name, entry in _entries(path, key):
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            fix = "put the file itself there: a link may lead to anything on this machine"
            raise _refused(key, path, f"{name} is a link that leads out of the directory", fix)
        try:
            status = entry.stat()
        except OSError as error:
            raise _refused(key, path, f"{name} cannot be read: {error.strerror}", "copy the files again") from error
        kind = kind_of(status.st_mode)
        is_template = is_extra_template(PurePosixPath(name))
        if kind is not None and (is_template or not entry.is_dir()):
            raise _refused(key, path, f"{name} is {kind}", "remove it")
        if name == EXTRA_TEMPLATES and (kind is None or entry.is_symlink()):
            raise _refused(key, path, f"{name} is not a directory", "remove it")
        if kind is not None or not (is_template or entry.parent == path):
            continue
        templates += is_template
        if is_pickle(entry.name):
            pickles.append(name)
        elif entry.suffix != ".safetensors":
            read_bytes += status.st_size
            _check_size(path, key, name, status.st_size, is_template)
    _check_totals(path, key, read_bytes, templates)
    if pickles:
        raise _refused(
            key,
            path,
            f"there is {', '.join(pickles[:10])}: pickles can run code when they are loaded, and are never read here",
            "delete them (the weights that count are *.safetensors), or leave them out when downloading: "
            "`hf download … --exclude '*.bin' '*.pt' '*.pth' '*.ckpt' '*.h5'`",
        )


def _entries(path: Path, key: str) -> Iterator[tuple[str, Path]]:
    """Yield the relative name and path of everything in a directory and in its folder of extra chat templates.

    Raises
    ------
    ModelError
        If there are too many entries, one of the two cannot be listed, or a name is not UTF-8.
    """
    templates, count = path / EXTRA_TEMPLATES, 0
    for directory in (path, templates):
        if directory == templates and (templates.is_symlink() or not templates.is_dir()):
            return
        try:
            # No more than the bound are held in memory.
            entries = sorted(islice(directory.iterdir(), _MOST_ENTRIES + 1))
        except OSError as error:
            why = f"{directory} cannot be listed: {error.strerror}"
            raise _refused(key, path, why, "correct the permissions") from error
        count += len(entries)
        if count > _MOST_ENTRIES:
            why = f"it holds more than {_MOST_ENTRIES} files"
            raise _refused(key, path, why, "give the model a directory of its own")
        for entry in entries:
            name = entry.relative_to(path).as_posix()
            if not name.isascii() and any("\udc80" <= character <= "\udcff" for character in name):
                why = f"the name {name.encode('utf-8', 'backslashreplace').decode()} is not UTF-8"
                raise _refused(key, path, why, "rename the file")
            yield name, entry


def _check_size(path: Path, key: str, name: str, size: int, is_template: bool) -> None:
    most = MAX_TEMPLATE_BYTES if is_template or name == "chat_template.jinja" else MAX_MODEL_FILE_BYTES
    if size > most:
        raise _refused(key, path, f"{name} is longer than {most} bytes", "remove it")


def _check_totals(path: Path, key: str, read_bytes: int, templates: int) -> None:
    if templates > _MOST_TEMPLATES:
        why = f"{EXTRA_TEMPLATES} holds {templates} chat templates, and {_MOST_TEMPLATES} at most are read"
        raise _refused(key, path, why, "remove those that are not needed")
    if read_bytes > _MOST_BYTES:
        why = f"its files beside *.safetensors have {read_bytes} bytes together, and {_MOST_BYTES} at most are read"
        raise _refused(key, path, why, "give the model a directory of its own")


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
        for place, setting, value in settings_of(values):
            if setting in _CODE_KEYS:
                raise ModelError(
                    f"{key}: {path} needs its own Python code ({place} in {name})",
                    why="codex-ml never runs code that comes with a model",
                    fix="use a model whose architecture is part of transformers",
                    code="MODEL_NEEDS_CODE",
                )
            is_file = setting in _FILE_KEYS and value
            if is_file or (setting in _VOCABULARY_KEYS and isinstance(value, str) and name == "tokenizer_config.json"):
                raise ModelError(
                    f"{key}: {path} names further files to read ({place} in {name})",
                    why="only files with the usual names are checked before they are read",
                    fix=f"remove {place} from {name}",
                    code="MODEL_NAMES_OTHER_FILES",
                )
            if setting in _KERNEL_KEYS and isinstance(value, str) and ("/" in value or ":" in value):
                raise ModelError(
                    f"{key}: {path} names a compiled kernel to load ({place} in {name})",
                    why="codex-ml never runs code that comes with a model",
                    fix=f"remove {place} from {name}",
                    code="MODEL_NEEDS_KERNEL",
                )
            largest = _LARGEST_COUNTS.get(setting, _LARGEST_NUMBER)
            if type(value) is int and abs(value) > largest and name == "config.json":
                raise ModelError(
                    f"{key}: {place} in {path / name} is beyond any model's size",
                    why=f"the largest number taken is {largest}",
                    fix="copy config.json again from its source",
                    code="MODEL_SIZE_OUT_OF_RANGE",
                )
    guard_tokenizer(path / "tokenizer.json", key)


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
                code="MODEL_NOT_LOADABLE",
            ) from error
    for place, setting, value in settings_of(config):
        if setting in _LAYER_KEYS and type(value) is int and value > min(len(entries), _MOST_LAYERS):
            raise ModelError(
                f"{key}: config.json and weights of {path} do not belong together",
                why=f"{place} is {value}, and the weights have {len(entries)} tensors",
                fix="copy all *.safetensors of the model, and its config.json, again",
                code="MODEL_CONFIG_WEIGHTS_MISMATCH",
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
            f"{key}: {file} is not valid JSON",
            why=str(error),
            fix="copy the file again from its source",
            code="MODEL_INVALID_JSON",
        ) from error


def _root_of(path: Path) -> Path:
    """Return the directory that links may lead into: the model's own, or that of its repository in a cache."""
    resolved = path.resolve()
    repository = resolved.parent.parent
    is_snapshot = resolved.parent.name == "snapshots" and repository.name.startswith("models--")
    return repository if is_snapshot else resolved


def _refused(key: str, path: Path, why: str, fix: str) -> ModelError:
    return ModelError(f"{key}: {path} cannot be used as it is", why=why, fix=fix, code="MODEL_DIRECTORY_REFUSED")
