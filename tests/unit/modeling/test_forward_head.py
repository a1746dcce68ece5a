"""The chunked head against torch's linear layer and cross entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from codex_ml.modeling.forward import CHUNK_BYTES, chunk_rows, head_loss
from codex_ml.modeling.memory_estimate import PeakMemory

HIDDEN, VOCABULARY, POSITIONS = 24, 53, 41


def parts(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return hidden states, weight, bias and targets, the first three with gradients."""
    draw = torch.Generator().manual_seed(4)
    hidden = torch.randn(POSITIONS, HIDDEN, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=draw).to(dtype).requires_grad_()
    bias = torch.randn(VOCABULARY, generator=draw).to(dtype).requires_grad_()
    return hidden, weight, bias, torch.randint(VOCABULARY, (POSITIONS,), generator=draw)


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Return the loss with all logits at once."""
    return functional.cross_entropy(functional.linear(hidden, weight, bias).float(), targets, reduction="sum")


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("rows", [1, 7, POSITIONS, 1000])
@pytest.mark.parametrize("with_bias", [True, False])
def test_head_loss_in_chunks_equals_all_logits_at_once(rows: int, with_bias: bool) -> None:
    """Loss and gradients of hidden states, weight and bias, whatever the size of the chunk."""
    hidden, weight, bias, targets = parts()
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    expected = plain(hidden, weight, bias if with_bias else None, targets)
    wanted = torch.autograd.grad(expected * 0.3, inputs)
    loss_sum, correct = head_loss(hidden, weight, bias if with_bias else None, targets, rows)
    assert loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(torch.autograd.grad(loss_sum * 0.3, inputs), wanted, strict=True):
        assert distance(one, other) <= 5e-6
    logits = functional.linear(hidden, weight, bias if with_bias else None)
    assert int(correct) == int((logits.argmax(-1) == targets).sum())


def test_head_loss_frozen_head_gives_the_hidden_states_a_gradient_and_nothing_else() -> None:
    """What is frozen costs no gradient."""
    hidden, weight, bias, targets = parts()
    frozen = weight.detach()
    loss_sum, correct = head_loss(hidden, frozen, None, targets)
    torch.autograd.backward(loss_sum)
    assert hidden.grad is not None
    assert frozen.grad is None
    assert bias.grad is None
    assert not correct.requires_grad


def test_head_loss_without_gradients_is_the_same_loss() -> None:
    """Evaluation sums to the bit what training does."""
    hidden, weight, bias, targets = parts()
    with_graph = head_loss(hidden, weight, bias, targets, 5)
    with torch.no_grad():
        without = head_loss(hidden, weight, bias, targets, 5)
    assert torch.equal(with_graph[0].detach(), without[0])
    assert torch.equal(with_graph[1], without[1])
    assert not without[0].requires_grad


def test_head_loss_without_gradients_makes_none_of_a_head_that_could_have_one() -> None:
    """A whole model that is only scored costs what a frozen one costs."""
    hidden, weight, bias, targets = parts()
    known = [hidden, weight, bias, targets]
    with torch.no_grad(), PeakMemory(known) as memory:
        head_loss(hidden, weight, bias, targets, 1)
    assert memory.peak_bytes < 4 * weight.numel()


@pytest.mark.parametrize("tokens", [517, 773, 1021])
def test_head_loss_of_bfloat16_scales_every_window_alike(tokens: int) -> None:
    """A mean over a window divides by a number that bfloat16 cannot hold: no window may weigh more for that."""
    hidden, weight, _, targets = parts(torch.bfloat16)
    frozen = weight.detach()
    (whole,) = torch.autograd.grad(head_loss(hidden, frozen, None, targets)[0], hidden)
    (mean,) = torch.autograd.grad(head_loss(hidden, frozen, None, targets)[0] / tokens, hidden)
    projected = (mean.double() * whole.double()).sum() / whole.double().square().sum()
    assert float(projected) * tokens == pytest.approx(1, abs=5e-4)


def test_head_loss_of_bfloat16_is_no_worse_than_all_logits_at_once() -> None:
    """Against float32: errors of loss and gradient at most those of plain bfloat16, with a tenth of leave."""
    hidden, weight, _, targets = parts(torch.bfloat16)
    exact_hidden = hidden.detach().float().requires_grad_()
    exact = plain(exact_hidden, weight.detach().float(), None, targets)
    (exact_gradient,) = torch.autograd.grad(exact, exact_hidden)
    naive = plain(hidden, weight.detach(), None, targets)
    (naive_gradient,) = torch.autograd.grad(naive, hidden)
    loss_sum, _ = head_loss(hidden, weight.detach(), None, targets, 7)
    (gradient,) = torch.autograd.grad(loss_sum, hidden)
    assert abs(loss_sum.item() - exact.item()) <= 1.1 * abs(naive.item() - exact.item()) + 1e-6 * exact.item()
    assert distance(gradient, exact_gradient) <= 1.1 * distance(naive_gradient, exact_gradient)


def test_head_loss_under_autocast_computes_as_autocast_does() -> None:
    """Logits in bfloat16 and the loss in float32; the gradient comes back in the type of the hidden states."""
    hidden, weight, _, targets = parts()
    frozen = weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(hidden, frozen, None, targets)
        (wanted,) = torch.autograd.grad(expected, hidden)
        loss_sum, _ = head_loss(hidden, frozen, None, targets, 7)
        (gradient,) = torch.autograd.grad(loss_sum, hidden)
    assert loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradient.dtype is torch.float32
    assert distance(gradient, wanted) <= 1e-2


def test_head_loss_equal_logits_choose_the_first_of_them() -> None:
    """A target that only shares the first place is not the choice."""
    hidden = torch.ones(2, 1)
    weight = torch.tensor([[0.0], [2.0], [2.0]])
    _, correct = head_loss(hidden, weight, None, torch.tensor([1, 2]))
    assert int(correct) == 1


def test_head_loss_nothing_supervised_is_a_differentiable_zero() -> None:
    """A micro-batch of prompts alone has a gradient, and it is zero."""
    hidden, weight, bias, _ = parts()
    nothing = hidden[:0]
    loss_sum, correct = head_loss(nothing, weight, bias, torch.zeros(0, dtype=torch.int64))
    torch.autograd.backward(loss_sum)
    assert (loss_sum.item(), int(correct)) == (0.0, 0)
    assert hidden.grad is not None
    assert hidden.grad.count_nonzero() == 0


def test_head_loss_infinite_logit_gives_no_finite_loss() -> None:
    """What is not a number stays none, for the check before the optimizer step."""
    hidden, weight, bias, targets = parts()
    with torch.no_grad():
        hidden[3, 0] = torch.inf
    assert not torch.isfinite(head_loss(hidden, weight, bias, targets)[0])


def test_chunk_rows_hold_the_bytes_they_are_given() -> None:
    """A large vocabulary takes few positions at a time, and never none."""
    assert chunk_rows(8_000) * 8_000 * 4 <= CHUNK_BYTES
    assert chunk_rows(8_000) == 1_048
    assert chunk_rows(10**9) == 16
