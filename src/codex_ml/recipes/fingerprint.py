"""What makes a run the same run: settings and digests that must be equal for a checkpoint to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from codex_ml.config.describe import describe_schema, section_names
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import CheckpointError
from codex_ml.modeling.layout import LayoutKind
from codex_ml.models.registry import BaseModel
from codex_ml.recipes.preparation import Prepared
from codex_ml.tokenizer_names import EXTRA_TOKENIZER

# Every key or whole section of the configuration that a resume may change, and why. What is named neither here nor
# below is compared: a new key is part of what makes a run the same run until somebody has thought about it.
MAY_CHANGE: Mapping[str, str] = MappingProxyType(
    {
        "schema_version": "a newer toolkit reads the same settings under a newer version",
        "offline": "what may be reached changes no number",
        "run.name": "decides which run latest is; the directory keeps its name",
        "run.output_dir": "runs may be moved",
        "run.resume_from": "says where to go on",
        "data.test": "never seen in training",
        "data.max_line_bytes": "stops a run or not; which records are kept is compared",
        "data.on_bad_record": "stops a run or not; which records are kept is compared",
        "data.max_bad_share": "stops a run or not; which records are kept is compared",
        "data.max_overlap_share": "stops a run or not; which records are kept is compared",
        "data.cache_dir": "the cache holds what would be built anew; token ids and masks are compared",
        "data.cache_min_bytes": "decides what is kept for the next start, not what is computed",
        "training.epochs": "a finished run can be extended, a long one cut short",
        "training.max_steps": "a finished run can be extended, a long one cut short",
        "training.gradient_checkpointing": "computes the same numbers in less memory",
        "training.logging_steps": "decides what is written, not what is computed",
        "training.eval_steps": "validation changes no weight",
        "training.save_steps": "decides what is written, not what is computed",
        "training.save_minutes": "decides what is written, not what is computed",
        "training.keep_last": "decides what is kept, not what is computed",
        "training.keep_best": "decides what is kept, not what is computed",
        "training.keep_every_steps": "decides what is kept, not what is computed",
        "training.early_stopping_patience": "decides where a run ends",
        "training.early_stopping_min_delta": "decides where a run ends",
        "eval": "scores change no weight",
        "generation": "texts change no weight",
        "serve": "answers change no weight",
        "tracking": "trackers change no number",
        "logging": "logs change no number",
    }
)
# Keys whose value may change because what it leads to is compared: by digest, or as what was chosen in the end.
BY_CONTENT: Mapping[str, str] = MappingProxyType(
    {
        "model.path": "base_model_digest",
        "model.name": "base_model_digest",
        "model.revision": "base_model_digest",
        "model.preset": "base_model_digest",
        "model.tokenizer": "tokenizer_digest",
        "model.device": "device",
        "model.dtype": "dtype",
        "model.batch_layout": "batch_layout",
        "data.path": "data_digest",
        "data.train": "data_digest",
        "data.valid": "validation_data_digest",
        "safety.policy": "safety_policy_digest",
    }
)
_VALIDATION_DATA = "validation_data_digest"
# What was chosen in the end, by the setting that decides it.
_SETTING_OF = {"batch_layout": "model.batch_layout"}
# Raised with every change to what a step computes, if only in its last bits: a resume after it would be another run.
_ARITHMETIC = 3
_ARITHMETIC_KEY = "arithmetic"
# The whole list stands in docs/runs.md; in an error message nobody reads to its end.
_IN_SHORT = (
    "its length (training.max_steps, training.epochs), intervals, retention, training.gradient_checkpointing, "
    "tracking and a few more, listed in docs/runs.md"
)


def settings_fingerprint(config: TrainConfig) -> dict[str, Any]:
    """Return the part that is known before any file is read, as JSON values by dotted key."""
    values = config.model_dump(mode="json")
    keys = [field.key for field in describe_schema(TrainConfig)]
    return {key: _value(values, key) for key in keys if not may_change(key) and key not in BY_CONTENT}


def run_fingerprint(config: TrainConfig, prepared: Prepared, base: BaseModel, layout: LayoutKind) -> dict[str, Any]:
    """Return all of it: settings, digests of model and data, and what the numbers are computed in.

    The data are compared as the very token ids and masks that are trained on, so that nothing between a file and a
    token (a template, a filter, a library) can change unseen.
    """
    dataset = prepared.dataset
    return {
        **settings_fingerprint(config),
        "base_model_digest": base.digest,
        "tokenizer_digest": prepared.tokenizer_digest,
        EXTRA_TOKENIZER: prepared.extra_tokenizer_digest,
        "data_digest": dataset.digest("train"),
        "data_token_digest": dataset.content_digest("train"),
        _VALIDATION_DATA: dataset.content_digest("valid") if dataset.splits.get("valid") else None,
        "safety_policy_digest": prepared.filters.policy.digest,
        "device": base.device.value.partition(":")[0],
        "dtype": base.dtype.value,
        "batch_layout": layout,
        _ARITHMETIC_KEY: _ARITHMETIC,
    }


def check_fingerprint(
    saved: Mapping[str, Any], current: Mapping[str, Any], checkpoint: Path, has_validated: bool = True
) -> None:
    """Stop when a checkpoint belongs to another run than the one described; only keys of ``current`` are compared.

    Parameters
    ----------
    saved, current : mapping
        Fingerprints of the checkpoint and of what is asked for now.
    checkpoint : Path
        For the message.
    has_validated : bool
        Whether the run has a best loss already, which losses on other records must not be compared with.

    Raises
    ------
    CheckpointError
        With every difference, as the checkpoint has it and as it is now, and with what may differ in short. A setting
        that is absent from an older checkpoint counts as its default, which is how the older code computed; the digest
        of extra tokenizer files is compared where it was recorded.
    """
    compared = [key for key in sorted(current) if has_validated or key != _VALIDATION_DATA]
    older = [key for key in compared if key not in {*saved, EXTRA_TOKENIZER} and not _is_default(key, current[key])]
    differing = [key for key in compared if key in saved and saved[key] != current[key]]
    if not older and not differing:
        return
    settings = {field.key for field in describe_schema(TrainConfig)}
    why = [f"{_SETTING_OF.get(key, key)}: {saved[key]!r} there, {current[key]!r} now" for key in differing]
    why += [
        f"{key}: {current[key]!r} now, written by an older codex-ml that did not know this option"
        if key in settings
        else f"{key}: written by an older codex-ml that did not record it, so it cannot be compared"
        for key in older
    ]
    fixes = ["put the settings and files back to resume"] if set(differing) - {_ARITHMETIC_KEY} else []
    fixes += [f"leave {key} out, which is its default" for key in older if key in settings]
    if any(key not in settings for key in older) or _ARITHMETIC_KEY in differing:
        fixes = ["resume with the codex-ml that wrote the checkpoint"]
    raise CheckpointError(
        f"run.resume_from: {checkpoint.name} belongs to a run with other settings or files",
        why="; ".join(why),
        fix=f"{'; '.join(fixes)}, or start a new run without --resume-from; what a resume may change: {_IN_SHORT}",
    )


def may_change(key: str) -> bool:
    """Tell whether a resume may change a key, whatever its value leads to."""
    return key in MAY_CHANGE or key.partition(".")[0] in MAY_CHANGE


def changeable_keys() -> list[str]:
    """Return what a resume may change, for people: keys, and sections as ``eval.*``."""
    sections = section_names(TrainConfig)
    return [f"{key}.*" if key in sections else key for key in MAY_CHANGE]


def _is_default(key: str, value: Any) -> bool:
    """Tell whether a setting has the value that every run had before there was the setting."""
    return any(field.key == key and field.default == value for field in describe_schema(TrainConfig))


def _value(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found
