"""Sampling against probabilities worked out by hand, and the edges of each setting."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from codex_ml.errors import NonFiniteError, UserError
from codex_ml.generation.decoding import Sampler, SamplingSettings
from error_checks import has_code

LOGITS = torch.tensor([math.log(weight) for weight in (1.0, 4.0, 2.0, 3.0)])


def settings(**values: object) -> SamplingSettings:
    """Return settings with a temperature of 1 unless another is given."""
    return SamplingSettings(**{"max_new_tokens": 1, "temperature": 1.0, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {1: 0.4, 3: 0.3, 2: 0.2, 0: 0.1}),
        ({"temperature": 0.5}, {1: 16 / 30, 3: 9 / 30, 2: 4 / 30, 0: 1 / 30}),
        ({"top_k": 2}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_k": 1}, {1: 1.0}),
        ({"top_k": 99}, {1: 0.4, 3: 0.3, 2: 0.2, 0: 0.1}),
        ({"top_p": 1.0}, {1: 0.4, 3: 0.3, 2: 0.2, 0: 0.1}),
        # The fewest that make up the share: 0.4 + 0.3 is enough for 0.65 and not for 0.75.
        ({"top_p": 0.65}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_p": 0.75}, {1: 4 / 9, 3: 3 / 9, 2: 2 / 9}),
        ({"top_p": 1e-9}, {1: 1.0}),
        # The share is of what top_k left: 4 / 7 of it is enough for 0.55.
        ({"top_k": 2, "top_p": 0.55}, {1: 1.0}),
        ({"temperature": 1e-300}, {1: 1.0}),
    ],
)
def test_distribution_is_that_of_the_definition(given: dict[str, float], expected: dict[int, float]) -> None:
    """Temperature first, then the most likely tokens, then the nucleus of what is left."""
    probabilities, token_ids = Sampler(settings(**given)).distribution(LOGITS)
    found = {token: p for token, p in zip(token_ids.tolist(), probabilities.tolist(), strict=True) if p > 0}
    assert found == pytest.approx(expected, rel=1e-6)
    assert list(found) == sorted(found, key=lambda token: -found[token])


def test_choose_many_draws_have_the_probabilities_of_the_distribution() -> None:
    """Pearson's chi-square of 20,000 draws; 16.27 is the 0.001 quantile for three degrees of freedom."""
    sampler = Sampler(settings(seed=7))
    count = 20_000
    drawn = Counter(sampler.choose(LOGITS) for _ in range(count))
    expected = {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}
    assert sum((drawn[token] - count * p) ** 2 / (count * p) for token, p in expected.items()) < 16.27


def test_choose_same_seed_same_tokens_and_other_seed_others() -> None:
    """The random numbers are the row's own: torch's global generator has no say and is left alone."""
    state = torch.get_rng_state()
    first, again, other = (Sampler(settings(seed=seed)) for seed in (3, 3, 4))
    logits = torch.zeros(1000)
    drawn = [first.choose(logits) for _ in range(20)]
    torch.manual_seed(0)
    assert [again.choose(logits) for _ in range(20)] == drawn
    assert [other.choose(logits) for _ in range(20)] != drawn
    torch.set_rng_state(state)


def test_choose_token_that_is_ruled_out_is_never_drawn() -> None:
    """A logit of minus infinity has no probability."""
    logits = torch.tensor([float("-inf"), 0.0, float("-inf")])
    assert {Sampler(settings(seed=seed)).choose(logits) for seed in range(50)} == {1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_distribution_of_no_numbers_is_refused(value: float) -> None:
    """Where the highest logit is no number there are no probabilities."""
    with pytest.raises(NonFiniteError, check=lambda error: has_code(error, "GENERATION_LOGITS_NOT_FINITE")):
        Sampler(settings()).distribution(torch.full((3,), value))


@pytest.mark.parametrize(
    "given",
    [
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"seed": -1},
        {"seed": 2**63},
        {"stop": ("a", "")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(given: dict[str, object]) -> None:
    """The message names the setting."""
    with pytest.raises(UserError, match=f"^{next(iter(given))} "):
        settings(**given)
