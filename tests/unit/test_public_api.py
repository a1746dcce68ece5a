"""The public Python API: a changed name, signature or field is a breaking change."""

from __future__ import annotations

import dataclasses
import inspect
from importlib import import_module

import pytest

from codex_ml import api

SIGNATURES = {
    "load_config": "(name: 'str' = 'default', *, overrides: 'Overrides' = (), "
    "config_dir: 'str | Path | None' = None) -> 'Composed'",
    "train": "(config: 'Composed', *, train_records: 'Records | None' = None, "
    "validation_records: 'Records | None' = None, callbacks: 'Sequence[Hook]' = (), "
    "resume_from: 'str | Path | None' = None) -> 'Run'",
    "evaluate": "(run: 'Run | str | Path', *, split: 'str' = 'test', records: 'Records | None' = None, "
    "overrides: 'Overrides' = ()) -> 'Scores'",
    "generate": "(run: 'Run | str | Path', prompts: 'Sequence[str]', *, overrides: 'Overrides' = ()) "
    "-> 'list[Generation]'",
}
COMPONENTS = {
    "codex_ml.data.split_utils:assign_split": ["key", "seed", "ratios"],
    "codex_ml.data.split_utils:assign_splits": ["keys", "seed", "ratios", "exact_sizes"],
    "codex_ml.data.split_utils:split_jsonl": [
        "path",
        "out_dir",
        "ratios",
        "seed",
        "group_by",
        "exact_sizes",
        "storage",
    ],
    "codex_ml.monitoring.codex_logging:write_ndjson": ["path", "record", "redact", "max_bytes", "clock", "storage"],
    "codex_ml.monitoring.codex_logging:read_ndjson": ["path"],
    "codex_ml.peft.peft_adapter:apply_lora": ["model", "cfg", "overrides"],
}
FIELDS = {
    "Run": ["directory", "best_checkpoint", "metrics"],
    "Scores": ["directory", "metrics", "predictions"],
}


def test_public_api_functions_keep_their_signatures() -> None:
    """The functions that are defined in the module are these, with these parameters."""
    functions = {
        name: str(inspect.signature(value))
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and not name.startswith("_")
    }
    assert functions == SIGNATURES


def test_public_api_results_keep_their_fields_and_are_frozen() -> None:
    """Results are frozen dataclasses with these fields."""
    classes = {name: value for name, value in vars(api).items() if dataclasses.is_dataclass(value)}
    assert {name: [field.name for field in dataclasses.fields(value)] for name, value in classes.items()} == FIELDS
    assert all(value.__dataclass_params__.frozen for value in classes.values())


@pytest.mark.parametrize("name", COMPONENTS)
def test_public_api_components_keep_their_parameters(name: str) -> None:
    """The adapter, split and NDJSON functions can be called as before."""
    module, function = name.split(":")
    assert list(inspect.signature(getattr(import_module(module), function)).parameters) == COMPONENTS[name]
