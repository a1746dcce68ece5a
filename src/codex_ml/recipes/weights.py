"""Which weights of a checkpoint are scored: those of its last step, or their average where one was kept beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codex_ml.config.schema.eval import WeightsWish
from codex_ml.errors import CheckpointError
from codex_ml.runs.targets import Target
from codex_ml.training.saving import AVERAGED_DIRECTORY


def keeps_average(target: Target) -> bool:
    """Tell whether a checkpoint holds averaged weights, by the manifest that was verified."""
    return any(name.startswith(f"{AVERAGED_DIRECTORY}/") for name in target.manifest.get("files", {}))


def uses_average(target: Target, wish: WeightsWish) -> bool:
    """Tell whether it is the average of a checkpoint that is scored; ``auto`` takes it where there is one."""
    return wish != "last" and keeps_average(target)


def weights_of(target: Target, wish: WeightsWish) -> Path | None:
    """Return the directory of the weights to load; None for the base."""
    if target.directory is None or not uses_average(target, wish):
        return target.directory
    return target.directory / AVERAGED_DIRECTORY


def weight_digests(target: Target, wish: WeightsWish) -> dict[str, str]:
    """Return the digests of the weights that are scored, by file; the other ones of the checkpoint are left out."""
    averaged = uses_average(target, wish)
    return {
        name: entry["sha256"]
        for name, entry in target.manifest.get("files", {}).items()
        if name.endswith(".safetensors") and name.startswith(f"{AVERAGED_DIRECTORY}/") == averaged
    }


def refuse_missing_averages(targets: Sequence[Target], wish: WeightsWish, key: str = "eval.weights") -> None:
    """Stop when averaged weights are asked for of a checkpoint that has none.

    Raises
    ------
    CheckpointError
        For the first of them.
    """
    for target in targets:
        if wish == "averaged" and target.directory is not None and not keeps_average(target):
            raise CheckpointError(
                f"--checkpoint {target.name}: {key}=averaged, and it holds no averaged weights",
                why=f"its run was trained without training.ema_decay, so there is no {AVERAGED_DIRECTORY}/ in it",
                fix=f"set {key}=auto, which takes the average where there is one",
            )
