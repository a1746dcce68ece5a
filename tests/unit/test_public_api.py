"""The public Python API: a change of a name, a signature or a field is a breaking change and must be made on purpose."""

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
    "codex_ml.data.split_utils:assign_split": "(key: 'bytes', seed: 'int', ratios: 'Sequence[float]') -> 'int'",
    "codex_ml.data.split_utils:assign_splits": "(keys: 'Sequence[bytes]', seed: 'int', ratios: 'Sequence[float]', exact_sizes: 'bool' = False) -> 'list[int]'",
    "codex_ml.data.split_utils:split_jsonl": "(path: 'Path', out_dir: 'Path', ratios: 'Sequence[float]' = (0.8, 0.1, 0.1), seed: 'int' = 0, group_by: 'str | None' = None, exact_sizes: 'bool' = False, storage: 'Storage | None' = None) -> 'SplitPaths'",
    "codex_ml.monitoring.codex_logging:write_ndjson": "(path: 'Path', record: 'Mapping[str, Any]', *, redact: 'Callable[[Any], Any]', max_bytes: 'int' = 10485760, clock: 'Callable[[], datetime]' = <function utc_now at 0x7fd9520b34c0>, storage: 'Storage | None' = None) -> 'None'",
    "codex_ml.monitoring.codex_logging:read_ndjson": "(path: 'Path') -> 'Iterator[dict[str, Any]]'",
    "codex_ml.peft.peft_adapter:apply_lora": "(model: 'PreTrainedModel', cfg: 'Mapping[str, Any] | None' = None, **overrides: 'Any') -> 'PeftModel'",
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
def test_public_api_components_keep_their_signatures(name: str) -> None:
    """The adapter, split and NDJSON functions can be called as before."""
    module, function = name.split(":")
    assert str(inspect.signature(getattr(import_module(module), function))) == COMPONENTS[name]
