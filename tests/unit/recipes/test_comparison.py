"""Comparing two runs: bits of tensors, and metrics but for what is timed."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from codex_ml.recipes.comparison import compare_checkpoints, compare_metrics


def metric(step: int, name: str, value: float, split: str = "train") -> dict[str, object]:
    """Return one line of a metrics log."""
    return {"step": step, "split": split, "name": name, "value": value}


def test_compare_metrics_timed_and_later_values_are_left_out() -> None:
    """Times, bytes and the system's own split are no result; steps beyond the last are not compared."""
    before = [
        metric(1, "loss", 0.5),
        metric(1, "memory_bytes", 1),
        metric(1, "supervised_tokens_per_second", 1),
        metric(1, "cpu_percent", 1, "system"),
        metric(2, "loss", 0.25),
    ]
    now = [metric(1, "loss", 0.5), metric(1, "memory_bytes", 2)]
    compared = compare_metrics(before, now, last_step=1)
    assert (compared.identical, compared.compared, compared.timed) == (True, 1, 3)


def test_compare_metrics_last_bit_missing_and_added_values_are_named() -> None:
    """One unit in the last place is a difference, and so is a value that stands on one side only."""
    before = [metric(1, "loss", 0.1), metric(2, "loss", 0.2)]
    now = [metric(1, "loss", 0.1 + 2**-56), metric(1, "extra", 1.0)]
    compared = compare_metrics(before, now, last_step=2)
    assert not compared.identical
    assert compared.differing == ((1, "train", "loss", 0.1, 0.1 + 2**-56),)
    assert compared.only_recorded == ("step 2 train loss",)
    assert compared.only_found == ("step 1 train extra",)
    assert compared.lines()[0].startswith("✗ metrics: 1 values compared, 1 differ, 1 only recorded, 1 only now")


def test_compare_metrics_nothing_to_compare_is_not_identical() -> None:
    """Two empty logs prove nothing."""
    assert not compare_metrics([], [], last_step=4).identical


def test_compare_checkpoints_names_tensors_with_their_largest_difference(tmp_path) -> None:
    """Equal tensors are not named; others with by how much, or why they cannot be subtracted."""
    before, now = tmp_path / "before", tmp_path / "now"
    for side in (before, now):
        (side / "ema").mkdir(parents=True)
        save_file({"a": torch.zeros(2)}, side / "ema" / "same.safetensors")
    save_file(
        {"a": torch.zeros(3), "b": torch.ones(2), "c": torch.ones(2), "d": torch.ones(1)}, before / "w.safetensors"
    )
    save_file(
        {"a": torch.zeros(3), "b": torch.tensor([1.0, 1.5]), "c": torch.ones(3), "e": torch.ones(1)},
        now / "w.safetensors",
    )
    save_file({"a": torch.zeros(1)}, before / "x.safetensors")
    same, weights, gone = compare_checkpoints(before, now)
    assert (same.name, same.identical) == ("ema/same.safetensors", True)
    assert (gone.name, gone.identical, gone.found) == ("x.safetensors", False, None)
    by_name = {item.name: (item.largest_absolute_difference, item.note) for item in weights.tensors}
    assert by_name["b"] == (0.5, "")
    assert by_name["c"][0] is None
    assert [by_name["d"][1], by_name["e"][1]] == ["only recorded", "only now"]
    assert "a" not in by_name
    assert "    b: largest absolute difference 0.5" in weights.lines()
