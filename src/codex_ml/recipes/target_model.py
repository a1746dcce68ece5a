"""The model that an evaluation or a generation uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from codex_ml.config.schema.eval import WeightsChoice
from codex_ml.errors import CheckpointError
from codex_ml.models.registry import BaseModel, load_model_directory
from codex_ml.models.trial import try_forward
from codex_ml.peft.adapter_files import temporary_adapter
from codex_ml.runs.listing import Target
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER
from codex_ml.training.checkpoint.save import AVERAGED_DIRECTORY


def keeps_average(target: Target) -> bool:
    """Tell whether a checkpoint holds averaged weights, by the manifest that was verified."""
    return any(name.startswith(f"{AVERAGED_DIRECTORY}/") for name in target.manifest.get("files", {}))


def uses_average(target: Target, choice: WeightsChoice) -> bool:
    """Tell whether it is the average of a checkpoint that is scored; ``auto`` takes it where there is one."""
    return choice != "last" and keeps_average(target)


def weights_of(target: Target, choice: WeightsChoice) -> Path | None:
    """Return the directory of the weights to load; None for the base."""
    if target.directory is None or not uses_average(target, choice):
        return target.directory
    return target.directory / AVERAGED_DIRECTORY


def weight_digests(target: Target, choice: WeightsChoice) -> dict[str, str]:
    """Return the digests of the weights that are scored, by file; the other ones of the checkpoint are left out."""
    averaged = uses_average(target, choice)
    return {
        name: entry["sha256"]
        for name, entry in target.manifest.get("files", {}).items()
        if name.endswith(".safetensors") and name.startswith(f"{AVERAGED_DIRECTORY}/") == averaged
    }


def refuse_missing_averages(targets: Sequence[Target], choice: WeightsChoice, key: str = "eval.weights") -> None:
    """Stop when averaged weights are asked for of a checkpoint that has none.

    Raises
    ------
    CheckpointError
        For the first of them.
    """
    for target in targets:
        if choice == "averaged" and target.directory is not None and not keeps_average(target):
            raise CheckpointError(
                f"--checkpoint {target.name}: {key}=averaged, and it holds no averaged weights",
                why=f"its run was trained without training.ema_decay, so there is no {AVERAGED_DIRECTORY}/ in it",
                fix=f"set {key}=auto, which takes the average where there is one",
            )


@contextmanager
def model_of(target: Target, choice: WeightsChoice, base: BaseModel) -> Iterator[nn.Module]:
    """Give the model of a target; an adapter is put on the shared base and taken off again."""
    directory = weights_of(target, choice)
    if directory is None:
        yield base.model
    elif target.manifest.get("kind") == "adapter":
        with temporary_adapter(base.model, directory) as adapted:
            yield adapted
    else:
        model = load_model_directory(directory, base.dtype.value, "--checkpoint")
        placed: PreTrainedModel = model.to(base.device.value)  # type: ignore[arg-type]
        try_forward(placed, directory, "--checkpoint")
        yield placed


def check_tokenizers(targets: Sequence[Target], tokenizer_digest: str, extra_digest: str) -> None:
    """Stop when a target was trained with another tokenizer; the digest of extra files counts where it was recorded.

    Raises
    ------
    CheckpointError
        For the first of them.
    """
    for target in targets:
        compared = (
            ("tokenizer digest", "tokenizer_digest", tokenizer_digest),
            ("digest of extra tokenizer files", EXTRA_TOKENIZER, extra_digest),
        )
        for shown, name, current in compared:
            saved = target.manifest.get(name)
            if saved is not None and saved != current:
                raise CheckpointError(
                    f"--checkpoint {target.name}: it was trained with another tokenizer",
                    why=f"{shown} {saved} there, {current} in this config",
                    fix="use the config of its run (leave --config-name away), or set model.path to its base",
                )


def check_bases(targets: Sequence[Target], base: BaseModel) -> None:
    """Stop when the adapter of a target was trained on another base.

    Raises
    ------
    CheckpointError
        For the first of them.
    """
    for target in targets:
        saved = target.manifest.get("base_model_digest")
        if target.manifest.get("kind") == "adapter" and saved != base.digest:
            raise CheckpointError(
                f"--checkpoint {target.name}: the adapter was trained on another base model",
                why=f"base digest {saved} there, {base.digest} in this config",
                fix="set model.path (or model.name and model.revision) to the base model it was trained on",
            )
