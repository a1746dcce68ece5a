"""Kernels are fixed and named, and those that refuse to be deterministic are found before a run."""

from __future__ import annotations

import warnings

import pytest
import torch

from codex_ml.errors import UserError
from codex_ml.modeling.determinism import Kernels, find_nondeterministic_ops, fix_workspace, fixed_kernels


def _settings() -> tuple[bool, bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


def _refusing() -> None:
    # torch has no deterministic form of this one on any device, so that it stands in for those of a GPU.
    torch.zeros(4).put_(torch.tensor([1]), torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("kernels", "inside"),
    [
        (Kernels("cpu", "sdpa"), (False, False, False, False)),
        (Kernels("cpu", "sdpa", deterministic=True, refused=()), (True, False, False, True)),
        (Kernels("cpu", "sdpa", deterministic=True, refused=("put_",)), (True, True, False, True)),
    ],
)
def test_fixed_kernels_block_sets_torch_and_gives_it_back(kernels, inside):
    """Deterministic where asked for, warning only where something refuses, never timed; as before afterwards."""
    before = _settings()
    torch.backends.cudnn.benchmark = True
    try:
        with fixed_kernels(kernels):
            assert _settings() == inside
        assert torch.backends.cudnn.benchmark
        with pytest.raises(ZeroDivisionError), fixed_kernels(kernels):
            raise ZeroDivisionError
    finally:
        torch.backends.cudnn.benchmark = before[2]
    assert _settings() == before


def test_fixed_kernels_refusal_in_the_run_names_the_kernel():
    """A kernel that refuses after all ends the run with a message, not as a fault of the toolkit."""
    with pytest.raises(UserError) as caught, fixed_kernels(Kernels("cuda:0", "sdpa", deterministic=True, refused=())):
        _refusing()
    assert "put_ has no deterministic form on cuda:0" in caught.value.what
    assert "training.deterministic=false" in caught.value.fix


def test_fixed_kernels_other_error_passes_as_it_is():
    """Only refusals are translated."""
    with pytest.raises(RuntimeError, match="something else"), fixed_kernels(Kernels("cpu", "sdpa")):
        raise RuntimeError("something else")


def test_fixed_kernels_refused_on_a_gpu_leaves_plain_attention_only():
    """Fused attention adds in any order where torch may only warn, so it is switched off there, and on again after."""
    kernels = Kernels("cuda:0", "sdpa", deterministic=True, refused=("some_kernel",))
    assert torch.backends.cuda.flash_sdp_enabled()
    with fixed_kernels(kernels):
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert kernels.to_json()["attention_kernels"] == ["math"]


def test_refused_kernels_finds_each_once_and_keeps_other_warnings():
    """All that refuse in one computation are named; a warning about something else is shown as ever."""

    def compute() -> None:
        _refusing()
        _refusing()
        warnings.warn("about something else", UserWarning, stacklevel=1)

    before = _settings()
    with pytest.warns(UserWarning, match="about something else") as said:
        assert find_nondeterministic_ops(compute) == ("put_",)
    assert len(said) == 1
    assert _settings() == before
    assert find_nondeterministic_ops(lambda: None) == ()


@pytest.mark.parametrize(
    ("kernels", "repeatable", "words"),
    [
        (Kernels("cpu", "sdpa"), True, "repeatable bit for bit"),
        (Kernels("cpu", "sdpa", deterministic=True, refused=()), True, "repeatable bit for bit"),
        (Kernels("cuda:0", "sdpa"), False, "not repeatable bit for bit"),
        (Kernels("cuda:0", "sdpa", deterministic=True), True, "found by a trial"),
        (Kernels("cuda:0", "sdpa", deterministic=True, refused=("a", "b")), False, "a, b has no deterministic form"),
    ],
)
def test_kernels_lines_say_what_repeats(kernels, repeatable, words):
    """What is printed at the start and what provenance keeps say the same."""
    assert kernels.repeatable is repeatable
    assert kernels.to_json()["repeatable"] is repeatable
    assert words in "\n".join(kernels.lines())


def test_kernels_trial_lines_say_what_only_the_trial_knows():
    """Nothing for a CPU where all went well or nothing was tried; the outcome on a GPU; a warning for what refuses."""
    assert Kernels("cuda:0", "sdpa", deterministic=True).trial_lines() == []
    assert Kernels("cpu", "sdpa", deterministic=True, refused=()).trial_lines() == []
    (line,) = Kernels("cuda:0", "sdpa", deterministic=True, refused=()).trial_lines()
    assert "every kernel that was tried is deterministic" in line
    (line,) = Kernels("cpu", "sdpa", deterministic=True, refused=("put_",)).trial_lines()
    assert line.startswith("warning: ")


@pytest.mark.parametrize("given", [None, ":4096:8", ":16:8"])
def test_fix_workspace_allowed_or_absent_is_fixed(given):
    """An environment without it gets one; one of the two that repeat is kept."""
    environment = {} if given is None else {"CUBLAS_WORKSPACE_CONFIG": given}
    fix_workspace(environment)
    assert environment == {"CUBLAS_WORKSPACE_CONFIG": given or ":4096:8"}


def test_fix_workspace_of_another_size_is_refused():
    """A user's own value is not overridden in silence."""
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG=:0:0"):
        fix_workspace({"CUBLAS_WORKSPACE_CONFIG": ":0:0"})
