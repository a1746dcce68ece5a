"""Bytes of tensors as they come and go, counted against what is known of them."""

from __future__ import annotations

import torch
from torch import nn

from codex_ml.modeling.memory_estimate import PeakMemory


def test_peak_memory_counts_what_is_alive_at_one_time() -> None:
    """Three tensors one after another take as much as one; two at a time take two."""
    with PeakMemory([]) as memory:
        for _ in range(3):
            made = torch.ones(1000)
            del made
    assert memory.peak_bytes == 4000
    with PeakMemory([]) as memory:
        kept = torch.ones(1000)
        made = kept + 1
        del made
        another = kept * 2
    assert memory.peak_bytes == 8000
    assert another.numel() == 1000


def test_peak_memory_views_and_operations_in_place_take_nothing() -> None:
    """A storage counts once, whatever looks at it; what was known before counts nothing."""
    known = torch.ones(1000)
    with PeakMemory([known]) as memory:
        known.view(10, 100).t().mul_(2)
    assert memory.peak_bytes == 0
    with PeakMemory([known]) as memory:
        made = known + 1
        made[::2].add_(1)
    assert memory.peak_bytes == 4000


def test_peak_memory_counts_what_the_backward_pass_keeps_and_makes() -> None:
    """A chain of n layers keeps n outputs until they are used; frozen weights are no obstacle."""
    layers = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(4)))
    layers.requires_grad_(False)
    trained = nn.Parameter(torch.zeros(50))
    inputs = torch.ones(20, 50)
    peaks = []
    for count in (2, 4):
        with PeakMemory([inputs, trained, *layers.parameters()]) as memory:
            hidden = inputs + trained
            for layer in layers[:count]:
                hidden = torch.tanh(layer(hidden))
            torch.autograd.backward(hidden.sum())
        del hidden
        trained.grad = None
        peaks.append(memory.peak_bytes)
    assert peaks[1] - peaks[0] == 2 * 20 * 50 * 4
