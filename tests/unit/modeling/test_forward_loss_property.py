"""Padding, batching and the order of records leave the summed loss as it is, whatever the records are."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codex_ml.data.batches import IGNORED_LABEL, predicting_positions
from codex_ml.modeling.forward import supervised_loss
from tiers import examples

VOCABULARY = 11
RECORDS = st.lists(
    st.lists(st.tuples(st.integers(0, VOCABULARY - 1), st.booleans()), min_size=1, max_size=7), min_size=1, max_size=5
)


@dataclass(frozen=True)
class Batch:
    """The three tensors of a padded batch."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    position_ids: None = None
    record_lengths: None = None

    @property
    def predicting(self) -> Tensor:
        """Positions whose next token has a label."""
        return torch.from_numpy(predicting_positions(self.labels.numpy()))


def bigram_model(input_ids: Tensor, **_unused: Any) -> SimpleNamespace:
    """Predict each token from the one before by a fixed table."""
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(3))
    return SimpleNamespace(logits=table[input_ids])


def padded(records: list[list[tuple[int, bool]]], extra: int) -> Batch:
    """Pad on the right with a token that also occurs as data."""
    width = max(map(len, records)) + extra
    input_ids, labels = torch.zeros(len(records), width, dtype=torch.int64), torch.full((len(records), width), -100)
    for row, record in enumerate(records):
        for position, (token_id, supervised) in enumerate(record):
            input_ids[row, position] = token_id
            labels[row, position] = token_id if supervised else IGNORED_LABEL
    return Batch(input_ids, torch.ones_like(input_ids), labels)


@examples(60)
@given(records=RECORDS, extra=st.integers(0, 3))
def test_supervised_loss_any_batch_is_the_sum_over_its_records(
    records: list[list[tuple[int, bool]]], extra: int
) -> None:
    """One padded batch sums to what its records sum to one at a time, in loss, correct and supervised tokens."""
    together = supervised_loss(bigram_model, padded(records, extra))
    alone = [supervised_loss(bigram_model, padded([record], 0)) for record in records]
    assert float(together.loss_sum) == pytest.approx(sum(float(one.loss_sum) for one in alone), rel=1e-5, abs=1e-6)
    assert int(together.correct) == sum(int(one.correct) for one in alone)
    assert together.supervised == sum(one.supervised for one in alone)
    assert together.supervised == sum(supervised for record in records for _, supervised in record[1:])
