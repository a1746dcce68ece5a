"""The model of a target: the base, an adapter on it, or the weights of a checkpoint, checked to belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from codex_ml.config.schema.eval import WeightsWish
from codex_ml.errors import CheckpointError
from codex_ml.models.registry import BaseModel, load_model_directory
from codex_ml.models.trial import try_forward
from codex_ml.peft.adapter_files import adapter_on
from codex_ml.recipes.weights import weights_of
from codex_ml.runs.targets import Target
from codex_ml.tokenizer_names import EXTRA_TOKENIZER


@contextmanager
def model_of(target: Target, wish: WeightsWish, base: BaseModel) -> Iterator[nn.Module]:
    """Give the model of a target; an adapter is put on the shared base and taken off again."""
    directory = weights_of(target, wish)
    if directory is None:
        yield base.model
    elif target.manifest.get("kind") == "adapter":
        with adapter_on(base.model, directory) as adapted:
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
