"""Lines checked and hashed many at a time."""

from __future__ import annotations

from codex_ml.data.splits.groups import group_key, record_key
from codex_ml.data.splits.hash import SplitHasher
from codex_ml.data.splits.line_checks import LineCheck


def test_line_check_without_group_hashes_each_record() -> None:
    """The hash is that of the record's own key under the seed."""
    lines = [b'{"a": 1}', b'{"a": 2}']
    checked = LineCheck(5, None, {})(lines)
    assert list(checked.groups) == [SplitHasher(5)(record_key(line)) for line in lines]
    assert not checked.records
    assert not checked.faults


def test_line_check_with_group_hashes_group_and_record() -> None:
    """Both are told apart: one decides the split, the other finds duplicates."""
    lines = [b'{"q": "x", "n": 1}', b'{"q": "x", "n": 2}']
    checked = LineCheck(5, "prompt", {"prompt": "q"})(lines)
    assert list(checked.groups) == [SplitHasher(5)(group_key({"q": "x"}, "q"))] * 2
    assert list(checked.records) == [SplitHasher(5)(record_key(line)) for line in lines]


def test_line_check_faulty_lines_are_named_by_index() -> None:
    """A line that is no record, and one without the group."""
    faults = LineCheck(0, "g", {})([b'{"g": 1}', b"nonsense", b'{"h": 1}', b'{"g": 1, "g": 2}']).faults
    assert [index for index, _ in faults] == [1, 2, 3]
    assert [fault.reason for _, fault in faults] == ["bad_json", "no_group", "doubled_key"]
    assert "not valid JSON" in faults[0][1].text
    assert "'g' is missing" in faults[1][1].text
    assert "duplicate key" in faults[2][1].text
