"""What makes a run the same run: settings and digests that must be equal for a checkpoint to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import CheckpointError
from codex_ml.models.registry import BaseModel
from codex_ml.recipes.preparation import Prepared

# Changing these changes where a run ends or what it writes, not what a step computes.
CHANGEABLE_TRAINING_KEYS = frozenset(
    {
        "epochs",
        "max_steps",
        "logging_steps",
        "eval_steps",
        "save_steps",
        "save_minutes",
        "keep_last",
        "keep_best",
        "keep_every_steps",
        "early_stopping_patience",
        "early_stopping_min_delta",
    }
)
# Paths are not compared: the digests of what lies there are.
_DATA_KEYS = ("format", "columns", "split", "max_length_tokens", "on_overlong")


def settings_fingerprint(config: TrainConfig) -> dict[str, Any]:
    """Return the part that is known before any file is read, as JSON values."""
    training = config.training.model_dump(mode="json")
    data = config.data.model_dump(mode="json")
    return {
        "safety_enabled": config.safety.enabled,
        "run.seed": config.run.seed,
        **{f"adapter.{key}": value for key, value in config.adapter.model_dump(mode="json").items()},
        **{f"training.{key}": value for key, value in training.items() if key not in CHANGEABLE_TRAINING_KEYS},
        **{f"data.{key}": data[key] for key in _DATA_KEYS},
    }


def run_fingerprint(config: TrainConfig, prepared: Prepared, base: BaseModel) -> dict[str, Any]:
    """Return all of it: settings, digests of model and data, and what the numbers are computed in.

    The data are compared as the very token ids and masks that are trained on, so that nothing between a file and a
    token (a template, a filter, a library) can change unseen.
    """
    return {
        **settings_fingerprint(config),
        "base_model_digest": base.digest,
        "tokenizer_digest": prepared.tokenizer_digest,
        "data_digest": prepared.dataset.digest("train"),
        "data_token_digest": prepared.dataset.content_digest("train"),
        "safety_policy_digest": prepared.filters.policy.digest,
        "device": base.device.value.partition(":")[0],
        "dtype": base.dtype.value,
    }


def check_fingerprint(saved: Mapping[str, Any], current: Mapping[str, Any], checkpoint: Path) -> None:
    """Stop when a checkpoint belongs to another run than the one described; only keys of ``current`` are compared.

    Raises
    ------
    CheckpointError
        With every difference, as the checkpoint has it and as it is now.
    """
    differing = [key for key in sorted(current) if saved.get(key) != current[key]]
    if differing:
        raise CheckpointError(
            f"run.resume_from: {checkpoint.name} belongs to a run with other settings or files",
            why="; ".join(f"{key}: {saved.get(key)!r} there, {current[key]!r} now" for key in differing),
            fix="put the settings and files back to resume, or start a new run without --resume-from",
        )
