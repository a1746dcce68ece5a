"""Compares two runs that should be one: weights bit for bit, and metrics line by line but for what is timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from codex_ml.io.atomic import file_digest

# Optimizer and generators: compared too, but they are not what a run is made for.
# Measured by a clock or of the machine: two equal runs differ in them. The names have units.
_TIMED_SUFFIXES = ("_seconds", "_per_second", "_bytes", "_percent", "_watts", "_celsius", "seconds_left")
_SYSTEM_SPLIT = "system"
_SHOWN = 5


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same, and by how much at most; None where the two cannot be subtracted."""

    name: str
    largest_absolute_difference: float | None
    note: str = ""


@dataclass(frozen=True)
class FileComparison:
    """One file of tensors, before and now."""

    name: str
    recorded: str | None
    found: str | None
    tensors: tuple[TensorDifference, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every byte is the same."""
        return self.recorded is not None and self.recorded == self.found

    def lines(self) -> list[str]:
        """Return it for people."""
        if self.identical:
            return [f"✓ {self.name}: identical, {self.found}"]
        lines = [f"✗ {self.name}: recorded {self.recorded or 'nothing'}, now {self.found or 'nothing'}"]
        lines += [
            f"    {item.name}: " + (item.note or f"largest absolute difference {item.largest_absolute_difference:.6g}")
            for item in self.tensors
        ]
        return lines


@dataclass(frozen=True)
class MetricComparison:
    """The metrics of both, line by line.

    Attributes
    ----------
    compared : int
        Values on both sides.
    differing : tuple
        Of these, those that are not equal: step, split, name, recorded, found.
    only_recorded, only_found : tuple of str
        Values on one side only.
    timed : int
        Values that were left out because they measure time or the machine.
    """

    compared: int
    differing: tuple[tuple[int, str, str, float, float], ...]
    only_recorded: tuple[str, ...]
    only_found: tuple[str, ...]
    timed: int

    @property
    def identical(self) -> bool:
        """Whether every value is on both sides and equal."""
        return bool(self.compared) and not (self.differing or self.only_recorded or self.only_found)

    def lines(self) -> list[str]:
        """Return it for people."""
        mark = "✓" if self.identical else "✗"
        lines = [
            f"{mark} metrics: {self.compared} values compared, {len(self.differing)} differ, {len(self.only_recorded)} "
            f"only recorded, {len(self.only_found)} only now; {self.timed} timed values left out"
        ]
        lines += [
            f"    step {step} {split} {name}: recorded {before!r}, now {now!r}"
            for step, split, name, before, now in self.differing[:_SHOWN]
        ]
        for what, names in (("only recorded", self.only_recorded), ("only now", self.only_found)):
            lines += [f"    {what}: {name}" for name in names[:_SHOWN]]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"identical": self.identical, **asdict(self)}


def compare_checkpoints(recorded: Path, found: Path) -> list[FileComparison]:
    """Compare every file of tensors of two checkpoints; where bytes differ, tensor by tensor."""
    names = sorted(
        {path.relative_to(side).as_posix() for side in (recorded, found) for path in side.rglob("*.safetensors")}
    )
    return [_compare_file(name, recorded / name, found / name) for name in names]


def compare_metrics(
    recorded: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]], last_step: int
) -> MetricComparison:
    """Compare the values of two logs up to a step."""
    before, timed = _values(recorded, last_step)
    now, _ = _values(found, last_step)
    both = [place for place in before if place in now]
    # Written as JSON, so equal text is equal bits; a NaN would be no JSON.
    differing = tuple((*place, before[place], now[place]) for place in both if before[place] != now[place])
    return MetricComparison(
        len(both),
        differing,
        tuple(_place(place) for place in before if place not in now),
        tuple(_place(place) for place in now if place not in before),
        timed,
    )


def _values(lines: Iterable[Mapping[str, Any]], last_step: int) -> tuple[dict[tuple[int, str, str], float], int]:
    values: dict[tuple[int, str, str], float] = {}
    timed = 0
    for line in lines:
        step, split, name = line.get("step"), str(line.get("split")), str(line.get("name"))
        if not isinstance(step, int) or step > last_step:
            continue
        if split == _SYSTEM_SPLIT or name.endswith(_TIMED_SUFFIXES):
            timed += 1
        else:
            values[step, split, name] = line["value"]
    return values, timed


def _place(place: tuple[int, str, str]) -> str:
    step, split, name = place
    return f"step {step} {split} {name}"


def _compare_file(name: str, recorded: Path, found: Path) -> FileComparison:
    digests = [file_digest(path) if path.is_file() else None for path in (recorded, found)]
    if None in digests or digests[0] == digests[1]:
        return FileComparison(name, digests[0], digests[1])
    try:
        before, now = load_file(recorded), load_file(found)
    except SafetensorError as error:
        return FileComparison(name, digests[0], digests[1], (TensorDifference(name, None, f"cannot be read: {error}"),))
    tensors = [
        _difference(key, before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if not _same(before, now, key)
    ]
    return FileComparison(name, digests[0], digests[1], tuple(tensors))


def _same(before: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor], key: str) -> bool:
    if key not in before or key not in now or before[key].dtype != now[key].dtype:
        return False
    return torch.equal(before[key], now[key])


def _difference(name: str, before: torch.Tensor | None, now: torch.Tensor | None) -> TensorDifference:
    if before is None or now is None:
        return TensorDifference(name, None, "only recorded" if now is None else "only now")
    if before.shape != now.shape or before.dtype != now.dtype:
        note = f"{tuple(before.shape)} {before.dtype} recorded, {tuple(now.shape)} {now.dtype} now"
        return TensorDifference(name, None, note)
    return TensorDifference(name, float((before.double() - now.double()).abs().max()))
