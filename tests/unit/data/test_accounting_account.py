"""The data account."""

from __future__ import annotations

import json

import pytest

from codex_ml.data.accounting import DataAccount, FileAccount, SplitAccount
from codex_ml.errors import DataError


def _account() -> DataAccount:
    train = SplitAccount(records_read=4)
    train.keep(tokenised=10, supervised=6, masked=4)
    train.keep(tokenised=20, supervised=5, masked=3)
    train.drop("overlong", 30)
    train.drop("safety_drop")
    test = SplitAccount(records_read=1)
    test.keep(tokenised=7, supervised=3, masked=4)
    return DataAccount({"train": train, "test": test}, [FileAccount("data.jsonl", 2, {"id": 5}, 5, 5)])


def test_data_account_counts_add_up_by_split_and_in_total() -> None:
    """Every token is supervised, masked, truncated, or in a dropped record."""
    account = _account()
    account.check()
    total = account.total()
    assert (total.records_read, total.records_kept, total.records_dropped) == (5, 3, 2)
    assert total.tokens_tokenised == 67
    assert (total.tokens_supervised, total.tokens_masked, total.tokens_truncated, total.tokens_in_dropped) == (
        14,
        11,
        12,
        30,
    )
    assert total.records_truncated == 1


def test_data_account_lost_record_or_token_is_an_error() -> None:
    """Counts that do not add up stop the run."""
    account = _account()
    account.splits["train"].records_read += 1
    with pytest.raises(DataError, match=r"account of train does not add up: 5 records read"):
        account.check()
    account = _account()
    account.splits["test"].tokens_masked -= 1
    with pytest.raises(DataError, match=r"account of test does not add up: 7 tokens"):
        account.check()
    account = _account()
    account.splits["test"].keep(tokenised=1, supervised=1, masked=1)
    account.splits["test"].records_read += 1
    with pytest.raises(DataError, match="-1 truncated"):
        account.check()


def test_data_account_to_dict_is_json_with_all_counts() -> None:
    """The file holds what the equations need, by split, in total, and by file."""
    content = json.loads(json.dumps(_account().to_dict()))
    assert content["splits"]["train"]["records"]["dropped"] == {"overlong": 1, "safety_drop": 1}
    assert content["total"]["tokens"]["in_dropped_records"] == 30
    assert content["files"] == [
        {
            "name": "data.jsonl",
            "empty_lines": 2,
            "records": {"read": 5, "kept": 5, "dropped": {}},
            "unused_columns": {"id": 5},
        }
    ]


def test_data_account_lines_form_a_table() -> None:
    """The table for the end of a run has one row a split and one in total, all of one width."""
    lines = _account().lines()
    assert [line.split()[0] for line in lines] == ["split", "train", "test", "total"]
    assert len({len(line) for line in lines}) == 1
    assert "2 (overlong 1, safety_drop 1)" in lines[1]
