"""Which kernel attends over records in one row, and the one that takes all records at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codex_ml.modeling.attention import attend_at_once, record_attention, record_kernel

LENGTHS = (5, 1, 9)


@pytest.mark.parametrize(
    ("values", "kernel"),
    [
        (("cuda", torch.bfloat16, 64, 0.0, False), "varlen"),
        (("cuda", torch.float16, 128, 0.0, False), "varlen"),
        (("cuda", torch.float32, 64, 0.0, False), "by record"),
        (("cuda", torch.bfloat16, 64, 0.1, False), "by record"),
        (("cuda", torch.bfloat16, 64, 0.0, True), "by record"),
        (("cuda", torch.bfloat16, 512, 0.0, False), "by record"),
        (("cuda", torch.bfloat16, 68, 0.0, False), "by record"),
        (("cpu", torch.bfloat16, 64, 0.0, False), "by record"),
        (("cpu", torch.float32, 64, 0.0, False), "by record"),
    ],
)
def test_record_kernel_is_a_function_of_what_is_computed(values, kernel: str) -> None:
    """Device, type, head size, dropout and whether it must repeat; no clock."""
    assert record_kernel(*values) == kernel


def packed_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    key_borders: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Compute what torch's `varlen_attn` is documented to, by plain products: ``[tokens, heads, head size]``."""
    assert torch.equal(borders, key_borders)
    assert borders.dtype == torch.int32
    assert longest == longest_key == int((borders[1:] - borders[:-1]).max())
    assert enable_gqa == (query.shape[1] != key.shape[1])
    groups = query.shape[1] // key.shape[1]
    before, after = window_size
    assert after == 0
    out = []
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        q = query[start:end].transpose(0, 1)
        k, v = (one[start:end].transpose(0, 1).repeat_interleave(groups, 0) for one in (key, value))
        position = torch.arange(end - start)
        behind = position[:, None] - position[None, :]
        seen = (behind >= 0) & ((behind <= before) if before >= 0 else torch.ones_like(behind, dtype=torch.bool))
        scores = (q @ k.transpose(1, 2)) * (scale if scale is not None else q.shape[-1] ** -0.5)
        out.append((scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("heads", [4, 2], ids=["every head", "grouped"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attend_at_once_is_attention_by_record(window: int | None, heads: int, scaling: float | None) -> None:
    """What the one kernel is given says the same as a call for each record: borders, windows, groups, scale."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, n, sum(LENGTHS), 8, generator=draw) for n in (4, heads, heads))
    expected, _ = record_attention(
        torch.nn.Module(), query, key, value, None, scaling=scaling, record_lengths=LENGTHS, sliding_window=window
    )
    found = attend_at_once(query, key, value, LENGTHS, scaling, window, packed_reference)
    assert found.shape == (1, sum(LENGTHS), 4, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("window", [None, 3])
def test_attend_at_once_on_a_gpu_is_attention_by_record(window: int | None) -> None:
    """The real kernel, value and gradient, in bfloat16 against float32 by record."""
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(1, n, sum(LENGTHS), 64, generator=draw) for n in (4, 2, 2)]
    expected, _ = record_attention(torch.nn.Module(), *states, None, record_lengths=LENGTHS, sliding_window=window)
    narrow = [state.cuda().bfloat16().requires_grad_() for state in states]
    found, _ = record_attention(torch.nn.Module(), *narrow, None, record_lengths=LENGTHS, sliding_window=window)
    torch.testing.assert_close(found.float().cpu(), expected, rtol=2e-2, atol=2e-2)
    found.float().square().sum().backward()
    assert all(bool(state.grad.isfinite().all()) for state in narrow if state.grad is not None)
