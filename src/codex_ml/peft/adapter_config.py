"""Reads the settings of a saved adapter as data; what would make peft import code or multiply layers is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import LoraConfig, TaskType

from codex_ml.errors import CheckpointError
from codex_ml.io.untrusted import UntrustedFileError, read_json

CONFIG_NAME = "adapter_config.json"
# A name of modules; peft would take anything else for a regular expression.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]{1,256}")
_LARGEST_RANK = 65536
_MOST_NAMES = 100_000
# Where the base lay, and what wrote the file, mean nothing here.
_IGNORED = frozenset({"base_model_name_or_path", "revision", "peft_version", "inference_mode", "peft_type"})


def read_adapter_config(directory: Path) -> LoraConfig:
    """Return the settings of a LoRA adapter, for weights that are then put into it.

    Every setting that is not one of a plain LoRA (rank, scale, dropout, biases, targets, rsLoRA, DoRA) must have peft's
    own default: among the others are names of Python modules to import and plans that multiply layers.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is no LoRA's, or holds such a setting; it is named.
    """
    file = directory / CONFIG_NAME
    try:
        values = read_json(file)
    except (OSError, UntrustedFileError) as error:
        raise _refused(file, str(error)) from error
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        raise _refused(file, "it describes no LoRA adapter (peft_type)")
    defaults = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key in _IGNORED:
            continue
        if key in _CHECKS:
            if not _CHECKS[key](value):
                raise _refused(file, f"{key} has a value that no adapter of codex-ml has")
            settings[key] = value
        elif key not in defaults or value != defaults[key]:
            raise _refused(file, f"{key} is set, which codex-ml neither writes nor follows")
    # The values are those of the file of weights; how new ones would be drawn plays no part.
    settings["init_lora_weights"] = True
    try:
        return LoraConfig(**settings, inference_mode=True)
    except (ValueError, TypeError) as error:  # settings that are sound one by one and exclude each other
        raise _refused(file, str(error).strip() or type(error).__name__) from error


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_RANK


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1e9


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_NAMES
        and all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in value)
    )


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and _are_names(list(value)) and all(_is_count(item) for item in value.values())


def _are_layers(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) <= _MOST_NAMES and all(type(item) is int for item in value)
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "r": _is_count,
    "lora_alpha": _is_number,
    "lora_dropout": lambda value: _is_number(value) and value < 1,
    "bias": lambda value: value in ("none", "all", "lora_only"),
    "task_type": lambda value: value is None or value in [task.value for task in TaskType],
    "target_modules": lambda value: value == "all-linear" or _are_names(value),
    "exclude_modules": lambda value: value is None or _are_names(value),
    "layers_to_transform": _are_layers,
    "layers_pattern": lambda value: value is None or _are_names([value] if isinstance(value, str) else value),
    "rank_pattern": _are_counts,
    "alpha_pattern": _are_counts,
    "fan_in_fan_out": _is_truth,
    "use_rslora": _is_truth,
    "use_dora": _is_truth,
    "init_lora_weights": lambda value: isinstance(value, bool | str),
}


def _refused(file: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file} cannot be used", why=why, fix="name an adapter that codex-ml trained", code="ADAPTER_CONFIG_INVALID"
    )
