"""Lines that were left out: their account, their file, and the share of them that is too large."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import Rejects, rejects_ndjson
from codex_ml.data.dataset import Dataset, build_dataset
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Write = Callable[..., Path]
Build = Callable[..., Dataset]


@pytest.fixture
def build(plain_tokenizer: PreTrainedTokenizerFast, word_filter: Callable[[str], Any]) -> Build:
    """Return what builds the records of a data section."""

    def built(splits: tuple[str, ...] = ("train", "valid", "test"), **section: Any) -> Dataset:
        return build_dataset(DataSection(**section), plain_tokenizer, word_filter, lambda *_finding: None, splits)

    return built


def _pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"How many {number}? ", "completion": "four cups"} for number in range(count)]


def test_build_dataset_lines_left_out_count_to_the_share_and_to_the_account(build: Build, write_jsonl: Write) -> None:
    """Half of what is allowed is unreadable, half too long: it adds up; with one more of either it is too much."""
    lines = [json.dumps(row).encode() + b"\n" for row in _pairs(36)]
    overlong = [json.dumps({"prompt": "p", "completion": "long " * 100}).encode() + b"\n"] * 2
    section = {"max_length_tokens": 64, "on_overlong": "drop", "on_bad_record": "drop", "max_bad_share": 0.1}
    dataset = build(train=write_jsonl(b"".join([*lines, *overlong, b"x\n", b"y\n"])), **section)
    total = dataset.account.total()
    assert (total.records_read, total.records_kept) == (40, 36)
    assert dict(total.dropped) == {"overlong": 2, "bad_json": 2}
    assert [len(rejects) for rejects in dataset.rejects] == [2]
    assert "2 of 40 lines are no records" in dataset.account.lines()[-1]
    for more in (b"z\n", overlong[0]):
        with pytest.raises(DataError, match="all splits, with lines that are no records, were dropped"):
            build(train=write_jsonl(b"".join([*lines, *overlong, b"x\n", b"y\n", more])), **section)


def test_build_dataset_one_split_of_a_file_with_bad_lines_is_judged_like_the_whole(
    build: Build, write_jsonl: Write
) -> None:
    """What training has passed is not refused where a small split is measured."""
    lines = [json.dumps(row).encode() + b"\n" for row in _pairs(200)]
    path = write_jsonl(b"".join([*lines, b"x\n" * 9]))
    section = {"path": path, "split": {"ratios": [0.95, 0.0, 0.05], "seed": 1}, "on_bad_record": "drop"}
    assert sum(map(len, build(**section).splits.values())) == 200
    assert len(build(("test",), **section).splits["test"]) < 20


def test_rejects_ndjson_names_place_and_reason_of_each_line() -> None:
    """One object a line, in the order of the file; a name that is no UTF-8 does no harm."""
    rejects = Rejects("caf\udce9.jsonl")
    rejects.add(3, 120, "bad_json")
    rejects.add(2**40, 2**45, "too_long_line")
    rows = [json.loads(line) for line in rejects_ndjson([rejects, Rejects("empty.jsonl")]).splitlines()]
    assert rows == [
        {"file": "caf\udce9.jsonl", "line": 3, "offset": 120, "reason": "bad_json"},
        {"file": "caf\udce9.jsonl", "line": 2**40, "offset": 2**45, "reason": "too_long_line"},
    ]
    assert rejects.counts() == {"bad_json": 1, "too_long_line": 1}
