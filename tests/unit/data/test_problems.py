"""Faults are counted without end and shown up to a bound."""

from __future__ import annotations

import pytest

from codex_ml.data.problems import MAX_SHOWN, LineFault, Problems, repeated_name
from codex_ml.errors import DataError
from error_checks import has_code


def test_problems_none_found_raise_nothing() -> None:
    """Nothing wrong is no error."""
    Problems().raise_if_any()


def test_problems_over_several_files_are_one_error() -> None:
    """The first is the headline; each remedy is named once, equal words are not repeated, equal faults share a line."""
    problems = Problems()
    problems.add("a.jsonl:1", "broken")
    problems.add("b.jsonl:7", "worse", "mend it")
    problems.add("b.jsonl:8", "worse", "mend it")
    problems.add("b.jsonl:9", "broken", "another way")
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    assert caught.value.what == "a.jsonl:1: broken"
    assert caught.value.fix == "mend it\n       another way"
    assert caught.value.why.splitlines()[1:] == ["       b.jsonl:7, b.jsonl:8: worse", "       b.jsonl:9: the same"]


def test_problems_pass_on_the_code_of_a_refused_file() -> None:
    """A file that cannot be read keeps its own code, also when a bad record follows."""
    problems = Problems()
    problems.add_error(DataError("a.jsonl: unreadable", code="FILE_UNREADABLE"))
    problems.add("b.jsonl:1", "broken")
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    assert has_code(caught.value, "FILE_UNREADABLE")
    assert "  code: FILE_UNREADABLE" in caught.value.block()


def test_problems_beyond_the_bound_are_counted_only() -> None:
    """A million faults take the room of twenty."""
    problems = Problems()
    for number in range(1_000_000):
        problems.add(f"a:{number}", "broken")
    assert problems.count == 1_000_000
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    assert f"and {1_000_000 - MAX_SHOWN:,} more" in caught.value.why
    assert len(caught.value.why.splitlines()) == 3
    assert caught.value.why.count("a:") == MAX_SHOWN - 1


def test_line_fault_with_a_position_names_the_offset_in_the_file() -> None:
    """An editor does not show which byte is no text."""
    assert LineFault("bad_encoding", "not UTF-8", 3).at(100) == "not UTF-8, offset 103 of the file"
    assert LineFault("bad_json", "not valid").at(100) == "not valid"
    assert LineFault("bad_json", "x", 1) == LineFault("bad_json", "x", 1)
    assert LineFault("bad_json", "x", 1) != LineFault("bad_json", "x", 2)
    assert len({LineFault("bad_json", "x"), LineFault("bad_json", "x")}) == 1


def test_repeated_name_is_the_first_in_order() -> None:
    """The result is None when every name occurs once."""
    assert repeated_name(["b", "c", "a", "c", "a"]) == "a"
    assert repeated_name(["a", "b"]) is None
