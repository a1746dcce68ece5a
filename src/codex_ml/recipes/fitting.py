"""How a step is cut so that it fits into memory: chosen where a config leaves it open, advised where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psutil
import torch

from codex_ml.config.schema.root import TrainConfig
from codex_ml.recipes.planning import Outline, plan_run
from codex_ml.recipes.preparation import Prepared
from codex_ml.training.checkpoint import LoadedState
from codex_ml.training.plan import Plan, format_bytes

# What tensors may take of the memory at hand. An allocator keeps much of what was freed: processes on a CPU were
# measured at up to three times their tensors (docs/training.md).
_CPU_SHARE, _CUDA_SHARE = 0.5, 0.9

# Plans a run with so many records in a pass.
PlanWith = Callable[[int], Plan]


def available_bytes(device: str) -> int:
    """Return the memory that could still be taken on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def fitted(
    config: TrainConfig, prepared: Prepared, outlined: Outline, at_hand: Callable[[str], int] = available_bytes
) -> tuple[TrainConfig, Plan]:
    """Return the config with a number for ``micro_batch_size: auto``, and its plan, with advice where it does not fit.

    Whatever is chosen, a step has the same records, and its result is the same up to the order of sums.

    Parameters
    ----------
    config : TrainConfig
        What is to be trained.
    prepared : Prepared
        Its records.
    outlined : Outline
        Its model without numbers.
    at_hand : callable
        Gives the bytes that could still be taken on a device.
    """
    available = at_hand(outlined.device)
    room = int(available * (_CUDA_SHARE if outlined.device.startswith("cuda") else _CPU_SHARE))
    records = config.training.records_per_step

    def plan_with(size: int) -> Plan:
        return plan_run(cut_into(config, size), prepared, outlined)

    if config.training.micro_batch_size == "auto":
        size, plan = largest_that_fits(records, room, plan_with)
        chosen = (
            f"training.micro_batch_size={size} training.gradient_accumulation_steps={records // size}: "
            f"{_why(size, plan.total_bytes, room, records)} ({format_bytes(available)} at hand)"
        )
        return cut_into(config, size), replace(plan, memory_advice=chosen)
    plan = plan_run(config, prepared, outlined)
    if plan.total_bytes <= available or config.training.tokens_per_micro_batch is not None:
        return config, plan
    size, smaller = largest_that_fits(records, room, plan_with)
    advice = (
        f"training.micro_batch_size={size} training.gradient_accumulation_steps={records // size} would take "
        f"{format_bytes(smaller.total_bytes)}, for the same steps"
        if smaller.total_bytes < plan.total_bytes
        else "one record in a pass takes as much; see training.gradient_checkpointing and data.max_length_tokens"
    )
    return config, replace(plan, memory_advice=f"warning: only {format_bytes(available)} at hand; {advice}")


def largest_that_fits(records: int, room: int, plan_with: PlanWith) -> tuple[int, Plan]:
    """Return the largest pass that divides a step and whose plan fits, or one record where none does.

    Parameters
    ----------
    records : int
        Of a step.
    room : int
        Bytes that the plan may take.
    plan_with : callable
        Plans the run for a number of records in a pass; more records never take less.
    """
    sizes = [size for size in range(1, records + 1) if records % size == 0]
    best, plan = 1, plan_with(1)
    low, high = 1, len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        candidate = plan_with(sizes[middle])
        if candidate.total_bytes <= room:
            best, plan, low = sizes[middle], candidate, middle + 1
        else:
            high = middle - 1
    return best, plan


def cut_into(config: TrainConfig, size: int) -> TrainConfig:
    """Return a config whose steps have the same records, so many of them in a pass."""
    steps = config.training.records_per_step // size
    training = config.training.model_copy(update={"micro_batch_size": size, "gradient_accumulation_steps": steps})
    return config.model_copy(update={"training": training})


def cut_as_before(config: TrainConfig, loaded: LoadedState | None) -> TrainConfig:
    """Return a config with the number that a run which is resumed chose for ``auto``; another one is left as it is."""
    if loaded is None or config.training.micro_batch_size != "auto":
        return config
    saved = loaded.values["fingerprint"]
    size, steps = saved.get("training.micro_batch_size"), saved.get("training.gradient_accumulation_steps")
    if not isinstance(size, int) or not isinstance(steps, int) or size * steps != config.training.records_per_step:
        return config
    return cut_into(config, size)


def _why(size: int, taken: int, room: int, records: int) -> str:
    if taken > room:
        return f"not even one record in a pass fits into the {format_bytes(room)} that tensors may take"
    if size == records:
        return "all records of a step fit into one pass"
    return f"the most that {format_bytes(room)} of tensors hold"
