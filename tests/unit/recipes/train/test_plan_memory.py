"""What is said when memory is not enough: the plan's own figures and the settings that save most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.recipes.train.plan import MemoryUse

MIB = 1 << 20


def use(parts: dict[str, int], **settings: Any) -> MemoryUse:
    """Return the use of a run whose plan has these parts in MiB."""
    named = {"weights": 0, "gradients": 0, "optimizer": 0, "activations": 0, "logits": 0} | parts
    micro, windows = settings.get("micro", 8), settings.get("windows", 1)
    training = SimpleNamespace(
        records_per_pass=micro,
        records_per_step=micro * windows,
        gradient_checkpointing=settings.get("checkpointing", True),
        tokens_per_micro_batch=settings.get("tokens"),
    )
    adapter = SimpleNamespace(kind=settings.get("kind", "lora"), r=settings.get("r", 8))
    config: Any = SimpleNamespace(training=training, adapter=adapter)
    plan: Any = SimpleNamespace(
        memory_bytes={name: count * MIB for name, count in named.items()},
        checkpointing_saves_bytes=300 * MIB,
        largest_pass_positions=settings.get("positions", 4096),
    )
    return MemoryUse(config, plan, settings.get("longest", 512), "cpu", settings.get("dtype", "float32"))


def test_explain_names_step_figures_and_three_settings_with_values() -> None:
    """The figures are those of the plan, and each setting has a value that can be typed."""
    error = RuntimeError("[enforce fail at x.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory: 99 bytes")
    shown = use({"weights": 100, "activations": 600, "logits": 200}).explain(error, step=12)
    assert shown.what == "out of memory on cpu in step 12"
    assert shown.why.startswith("can't allocate memory: 99 bytes; the plan estimated 900.0 MiB of tensors")
    assert "activations 600.0 MiB" in shown.why
    assert "training.micro_batch_size=8" in shown.why
    assert "512 tokens" in shown.why
    first, second, third = (shown.fix.index(f"{number}. ") for number in (1, 2, 3))
    assert first < second < third
    assert "4. " not in shown.fix


def test_advice_is_ordered_by_what_it_saves() -> None:
    """Large activations: the batch first; large weights: their type first."""
    batch_first = use({"weights": 1, "activations": 800, "logits": 200}, dtype="bfloat16").advice()
    assert batch_first[0].startswith("training.micro_batch_size=4 training.gradient_accumulation_steps=2 ")
    assert batch_first[0].endswith("(saves about 500.0 MiB)")
    assert batch_first[1].startswith("data.max_length_tokens=256 ")
    weights_first = use({"weights": 900, "activations": 40, "logits": 0}).advice()
    assert weights_first[0].startswith("model.dtype=bfloat16 (saves about 470.0 MiB)")


def test_advice_gradient_checkpointing_first_where_it_is_off_and_saves_most() -> None:
    """It is the one setting with which the run itself can go on, and says so; where it is on it is no advice."""
    found = use({"activations": 400}, checkpointing=False, dtype="bfloat16").advice()
    assert found[0] == (
        "training.gradient_checkpointing=true, with which this run can be resumed (saves about 300.0 MiB)"
    )
    assert not [text for text in use({"activations": 400}).advice() if "checkpointing" in text]


@pytest.mark.parametrize(
    ("micro", "windows", "expected"), [(8, 1, (4, 2)), (7, 1, (1, 7)), (6, 3, (3, 6)), (5, 2, (2, 5))]
)
def test_advice_smaller_batch_keeps_the_window(micro, windows, expected) -> None:
    """Micro-batch times accumulation stays what it was, so that the steps stay the same."""
    text = use({"activations": 100}, micro=micro, windows=windows).advice()[0]
    assert text.startswith(
        f"training.micro_batch_size={expected[0]} training.gradient_accumulation_steps={expected[1]} "
    )
    assert expected[0] * expected[1] == micro * windows


def test_advice_smallest_batch_names_only_what_can_still_be_lowered() -> None:
    """A micro-batch of one record is not halved; training all weights is the largest saving where it is done."""
    found = use({"gradients": 100, "optimizer": 200, "activations": 10}, micro=1, kind="none").advice()
    assert found[0].startswith("adapter.kind=lora")
    assert not [text for text in found if "micro_batch_size" in text]
    assert use({"activations": 1}, micro=1, longest=1, dtype="bfloat16", r=1).advice() == []


def test_advice_smaller_budget_of_tokens_where_passes_are_cut_by_it() -> None:
    """The number of records in a pass is not what decides then; below the longest record nothing is gained."""
    text = use({"activations": 100}, tokens=10**6, positions=4096, longest=512).advice()[0]
    assert text == "training.tokens_per_micro_batch=2048 (saves about 50.0 MiB)"
    found = use({"activations": 100}, tokens=512, positions=512, longest=512).advice()
    assert not [text for text in found if "micro_batch" in text]
