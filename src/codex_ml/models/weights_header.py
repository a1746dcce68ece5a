"""Reads what a safetensors file says of its tensors, and holds it against the size of the file; no weight is read."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from codex_ml.untrusted import UntrustedFileError, open_regular, parse_json

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
