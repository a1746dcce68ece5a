"""Every source of chance is put back exactly, also through JSON."""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from safetensors.torch import load, save

from codex_ml.training.checkpoint.state import random_snapshot, random_tensors, restore_random, seed_everything


def draw() -> list[float]:
    """Draw from all three generators, normal numbers too: they keep half of a pair back."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.random()),
        float(np.random.standard_normal()),
        *torch.rand(2).tolist(),
        *torch.randn(2).tolist(),
    ]


def test_seed_everything_same_seed_same_draws() -> None:
    """A seed decides every generator; another seed gives other numbers."""
    draws = []
    for seed in (1, 1, 2, 2**40):
        seed_everything(seed)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(first != second for first, second in zip(draws[1], draws[2], strict=True))
    assert draws[2] != draws[3]


def test_restore_random_after_files_gives_the_next_draw() -> None:
    """State written as safetensors and JSON and read back continues where it stood."""
    seed_everything(5)
    draw()
    tensors, values = save(random_tensors()), json.dumps(random_snapshot().values())
    expected = [draw(), draw()]
    seed_everything(99)
    restore_random(load(tensors), json.loads(values))
    assert [draw(), draw()] == expected


def test_random_snapshot_asking_draws_nothing() -> None:
    """Saving a checkpoint does not move any generator."""
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    random_tensors()
    random_snapshot().values()
    assert draw() == expected
