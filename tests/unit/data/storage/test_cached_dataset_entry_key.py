"""The key of a cached entry: whatever decides about it gives another, and every option is thought of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.data import DataSection, SplitSection
from codex_ml.data.storage.cached_dataset import NOT_IN_KEY, entry_key

Write = Callable[..., Path]
MADE_BY = {"tokenizer": "t", "safety_policy": "p", "safety_enabled": True}
EVERY = ("train", "valid", "test")
ROWS = [{"prompt": "a", "completion": "b"}]
# For every option that is in the key, a value that is not its default.
OTHER_VALUES: Mapping[str, Any] = {
    "weights": {"a": 2.0},
    "format": "prompt_completion",
    "columns": {"prompt": "question"},
    "supervise": "last_assistant_turn",
    "trust_control_tokens_in_text": True,
    "max_length_tokens": 1023,
    "on_overlong": "drop",
    "max_line_bytes": 10**6,
    "on_bad_record": "drop",
    "max_bad_share": 0.06,
}
OTHER_SPLITS: Mapping[str, Any] = {
    "ratios": [0.7, 0.2, 0.1],
    "seed": 1,
    "group_by": "prompt",
    "exact_sizes": True,
}


def _key(files: Mapping[str, Path], made_by: Mapping[str, Any] = MADE_BY, **section: Any) -> str:
    data = DataSection(files=dict(files), **section)
    return entry_key(data, {f"files.{name}": path for name, path in files.items()}, EVERY, made_by)


def _key_of_one(path: Path, **section: Any) -> str:
    return entry_key(DataSection(path=path, **section), {"path": path}, EVERY, MADE_BY)


def test_entry_key_every_option_of_the_section_has_a_variant() -> None:
    """An option that is added later is in the key and tested, unless somebody writes down that it decides nothing."""
    where = {"path", "files", "train", "valid", "test", "cache_dir", "cache_min_bytes", "max_overlap_share"}
    assert where == NOT_IN_KEY
    assert set(DataSection.model_fields) - NOT_IN_KEY - {"split"} == set(OTHER_VALUES)
    assert set(SplitSection.model_fields) == set(OTHER_SPLITS)


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_entry_key_option_with_another_value_gives_another(name: str, write_jsonl: Write) -> None:
    """Each option of the section, by itself."""
    files = {"a": write_jsonl(ROWS, "a.jsonl")}
    assert _key(files, **{name: OTHER_VALUES[name]}) != _key(files)


@pytest.mark.parametrize("name", OTHER_SPLITS)
def test_entry_key_split_option_with_another_value_gives_another(name: str, write_jsonl: Write) -> None:
    """Each option of the division, by itself."""
    path = write_jsonl(ROWS, "a.jsonl")
    assert _key_of_one(path, split={name: OTHER_SPLITS[name]}) != _key_of_one(path)


@pytest.mark.parametrize("name", MADE_BY)
def test_entry_key_other_maker_gives_another(name: str, write_jsonl: Write) -> None:
    """Tokenizer, policy, and whether the policy is in force."""
    files = {"a": write_jsonl(ROWS, "a.jsonl")}
    assert _key(files, {**MADE_BY, name: "other"}) != _key(files)


def test_entry_key_files_in_another_order_give_another(write_jsonl: Write) -> None:
    """Records lie in the order of the files, so the order decides."""
    first, second = write_jsonl(ROWS, "a.jsonl"), write_jsonl(ROWS * 2, "b.jsonl")
    assert _key({"a": first, "b": second}) != _key({"b": second, "a": first})


def test_entry_key_files_under_each_others_names_give_another(write_jsonl: Write) -> None:
    """A name in data.files has a weight, so which file has it decides; so does which of them is weighted."""
    first, second = write_jsonl(ROWS, "a.jsonl"), write_jsonl(ROWS * 2, "b.jsonl")
    files = {"a": first, "b": second}
    keys = [_key(files), _key({"a": second, "b": first}), _key(files, weights={"a": 2}), _key(files, weights={"b": 2})]
    assert len(set(keys)) == len(keys)


def test_entry_key_other_bytes_name_role_or_splits_give_another(write_jsonl: Write) -> None:
    """What the file holds, what it is called, what it is for, and what is built of it."""
    path = write_jsonl(ROWS, "a.jsonl")
    data = DataSection(train=path)
    keys = [
        _key_of_one(path),
        _key_of_one(write_jsonl(ROWS, "b.jsonl")),
        entry_key(DataSection(path=path), {"path": path}, ("test",), MADE_BY),
        entry_key(data, {"train": path}, EVERY, MADE_BY),
    ]
    keys.append(_key_of_one(write_jsonl(ROWS * 2, "a.jsonl")))
    assert len(set(keys)) == len(keys)


def test_entry_key_other_place_or_limit_gives_the_same(write_jsonl: Write, tmp_path: Path) -> None:
    """Where file and cache lie decides nothing, nor does what is refused after the cache."""
    path = write_jsonl(ROWS, "a.jsonl")
    (tmp_path / "moved").mkdir()
    moved = write_jsonl(ROWS, "moved/a.jsonl")
    there = _key_of_one(moved, cache_dir=tmp_path, cache_min_bytes=5, max_overlap_share=0.1)
    assert there == _key_of_one(path)
