"""Tensors as a safetensors file in pieces, one after another: a checkpoint needs no second copy of them in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# As https://huggingface.co/docs/safetensors names them; what an optimizer, an average and generators of numbers hold.
_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT_BYTES = 8


def tensor_file_pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file: its header, then the numbers of each tensor as they lie in memory.

    The library's own ``save`` makes two copies of everything first: with all weights trained, four times their size.

    Parameters
    ----------
    tensors : mapping
        Contiguous tensors on the CPU by name, of the types that training keeps.

    Raises
    ------
    KeyError
        For a tensor of another type.
    """
    # Wide types first, so that every tensor begins at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda entry: (-entry[1].element_size(), entry[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        numbers: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()  # typed as no buffer, which arrays are
        yield memoryview(numbers)
