"""A safetensors file in pieces is one that the library reads, and no second copy of its tensors."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from codex_ml.training.checkpoint.state import tensor_file_pieces

TENSORS = {
    "optimizer.b|exp_avg": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "optimizer.a|step": torch.tensor(7.0),
    "untouched": torch.empty(0),
    "generator": torch.arange(5, dtype=torch.uint8),
    "half": torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16),
    "count": torch.tensor([1, 2**40]),
    'names of any kind: é " \\': torch.tensor([True, False]),
}


@pytest.mark.parametrize("tensors", [TENSORS, {}, {"one": torch.zeros(0, 3)}], ids=["kinds", "none", "empty"])
def test_tensor_file_pieces_are_what_the_library_reads(tensors: dict[str, Tensor]) -> None:
    """Names, types, shapes and every bit, whatever stands beside what."""
    read = load(b"".join(tensor_file_pieces(tensors)))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor)


def test_tensor_file_pieces_order_is_that_of_no_mapping() -> None:
    """The same tensors give the same bytes in whatever order they come."""
    backwards = dict(reversed(TENSORS.items()))
    assert b"".join(tensor_file_pieces(TENSORS)) == b"".join(tensor_file_pieces(backwards))


def test_tensor_file_pieces_copy_nothing() -> None:
    """Sixteen million bytes pass, and what Python takes beside them is a header."""
    tensors = {str(number): torch.zeros(1_000_000) for number in range(4)}
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in tensor_file_pieces(tensors))
        assert total > 16_000_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_tensor_file_pieces_unknown_type_is_refused() -> None:
    """Before anything is written."""
    with pytest.raises(KeyError):
        next(tensor_file_pieces({"complex": torch.zeros(2, dtype=torch.complex64)}))
