"""Applies a LoRA adapter to a causal language model: asked for means applied, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from codex_ml.errors import AdapterError
from codex_ml.peft.fused_linear import fuse_linear_layers

# alpha = 2 r and dropout 0 are the values most published runs begin with; dropout 0 is also peft's own default and
# what makes accumulation and batch size interchangeable (DESIGN.md, promise 6).
DEFAULT_CFG: Mapping[str, Any] = MappingProxyType(
    {
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": "all-linear",
    }
)
_ALIASES = {"alpha": "lora_alpha", "dropout": "lora_dropout", "rank": "r"}
_KNOWN = frozenset(field.name for field in fields(LoraConfig))


@dataclass(frozen=True)
class TrainableShare:
    """How much of a model is trained."""

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters ({100 * self.trainable / max(1, self.total):.2f} %)"


def apply_lora(model: PreTrainedModel, cfg: Mapping[str, Any] | None = None, **overrides: Any) -> PeftModel:
    """Wrap a model with a LoRA adapter (Hu et al. 2021, arXiv:2106.09685).

    Parameters
    ----------
    model : PreTrainedModel
        The base model; its own weights are frozen.
    cfg : mapping, optional
        Settings by the names of `peft.LoraConfig`, or `alpha`, `dropout` and `rank`; missing ones come from
        `DEFAULT_CFG`.
    **overrides
        Further settings; a key in both, the override wins and the key reaches peft once.

    Returns
    -------
    PeftModel
        With float32 adapter weights, whatever the dtype of the base.

    Raises
    ------
    AdapterError
        For an unknown key or task type, a target that matches no module, or an adapter with nothing to train.
    """
    settings = {**DEFAULT_CFG, **_canonical(cfg or {}), **_canonical(overrides)}
    _check_keys(settings)
    if isinstance(settings["target_modules"], tuple):
        # peft makes a set of a list only.
        settings["target_modules"] = list(settings["target_modules"])
    _check_targets(model, settings["target_modules"])
    # GPT-2 keeps its weights transposed (Conv1D); said here, peft need not find out and warn.
    settings.setdefault("fan_in_fan_out", any(_is_conv1d(module) for module in model.modules()))
    try:
        config = LoraConfig(**settings)
        fuse_linear_layers(config)
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(
            "adapter: peft refuses these settings for this model",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="check adapter.target_modules, adapter.task_type and adapter.r",
            code="ADAPTER_SETTINGS_REFUSED",
        ) from error
    if not isinstance(adapted, PeftModel):
        raise AdapterError(
            "adapter: peft returned no adapted model", fix="check adapter.task_type", code="ADAPTER_NOT_BUILT"
        )
    share = trainable_share(adapted)
    if share.trainable == 0:
        raise AdapterError(
            "adapter: nothing is left to train",
            fix="check adapter.target_modules and adapter.r",
            code="ADAPTER_NOTHING_TO_TRAIN",
        )
    return adapted


def trainable_share(model: torch.nn.Module) -> TrainableShare:
    """Count the parameters that will be trained, and all."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return TrainableShare(sum(count for count, trained in counts if trained), sum(count for count, _ in counts))


def _canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    canonical: dict[str, Any] = {}
    for key, value in settings.items():
        name = _ALIASES.get(key, key)
        if name in canonical:
            raise AdapterError(
                f"adapter.{key}: given twice, once as {name}", fix="keep one of the two", code="ADAPTER_DUPLICATE_KEY"
            )
        canonical[name] = value
    return canonical


def _check_keys(settings: Mapping[str, Any]) -> None:
    unknown = sorted(set(settings) - _KNOWN)
    if unknown:
        raise AdapterError(
            f"adapter: unknown key(s) {', '.join(unknown)}",
            fix=f"peft.LoraConfig knows: {', '.join(sorted(_KNOWN))}; here also {', '.join(sorted(_ALIASES))}",
            code="ADAPTER_UNKNOWN_KEY",
        )
    known_tasks = [task.value for task in TaskType]
    if settings["task_type"] not in known_tasks:
        raise AdapterError(
            f"adapter.task_type: unknown task {settings['task_type']!r}",
            fix=f"one of {', '.join(known_tasks)}",
            code="ADAPTER_UNKNOWN_TASK",
        )


def _check_targets(model: PreTrainedModel, targets: Any) -> None:
    """Stop when a listed target matches no module; peft itself is content when any one of a list matches."""
    if isinstance(targets, str) or targets is None:
        return
    names = [name for name, _ in model.named_modules()]
    candidates = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _can_adapt(module)})
    absent = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if absent:
        raise AdapterError(
            f"adapter.target_modules: {', '.join(absent)} matches no module of this model",
            fix=f"modules that can carry an adapter: {', '.join(candidates)}; or use all-linear",
            code="ADAPTER_TARGET_NOT_FOUND",
        )


def _can_adapt(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | torch.nn.Embedding) or _is_conv1d(module)


def _is_conv1d(module: torch.nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"
