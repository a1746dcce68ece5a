"""Rows under the safety filters: what is looked at, what decides, what is counted and how places are named."""

from __future__ import annotations

import json

import pytest

from codex_ml.recipes.data.validate import FindingTally, RowFilter
from codex_ml.safety.filters import FAILURE, Finding, SafetyFilters
from codex_ml.safety.matching import RuleMatch
from codex_ml.safety.policy import parse_policy

pytestmark = pytest.mark.safety
_POLICY = parse_policy(
    """
version: 1
rules:
  - {id: red, kind: regex, description: d, patterns: [RED]}
  - {id: gone, kind: regex, description: d, patterns: [DROP], action: drop}
  - {id: stop, kind: regex, description: d, patterns: [BLOCK], action: block}
""",
    "rows",
)


@pytest.fixture
def rows() -> RowFilter:
    """Return a filter of rows with a rule of each action."""
    return RowFilter(SafetyFilters(_POLICY))


@pytest.mark.parametrize(
    ("row", "action", "rule_id", "name"),
    [
        ({"a": "RED", "b": "fine"}, "redact", "red", "a"),
        ({"a": "RED", "b": {"c": ["fine", "a DROP"]}}, "drop", "gone", "b.c[1]"),
        ({"a": "DROP", "b": ["RED BLOCK"], "c": "DROP"}, "block", "stop", "b[0]"),
        ({"a": "BLOCK", "b": "BLOCK DROP"}, "block", "stop", "a"),
        ({"meta": {"a DROP": 1}}, "drop", "gone", "meta.(key)"),
    ],
)
def test_row_filter_severest_string_decides(rows: RowFilter, row: dict, action: str, rule_id: str, name: str) -> None:
    """The first of the severest, with its rule and its place."""
    look = rows.look(row)
    assert (look.action, look.rule_id, rows.field_name(look.place)) == (action, rule_id, name)


def test_row_filter_short_value_is_judged_by_its_key_and_by_no_other() -> None:
    """In an object and in a list under it; what was clean under one key is looked at again under another."""
    keyed = (
        'version: 1\nrules:\n  - {id: pin, kind: regex, description: d, patterns: [\'"pin": "(?P<value>[^"]+)"\']}\n'
    )
    rows = RowFilter(SafetyFilters(parse_policy(keyed, "keys")))
    assert rows.look({"note": "4821"}).action == "keep"
    look = rows.look({"note": "4821", "user": {"pin": "4821"}, "pin": ["4821", {"note": "4821"}]})
    assert [place for place, _ in look.found] == [("user", "pin"), ("pin", 0)]
    assert all((finding.start, finding.length) == (0, 4) for _, finding in look.found)
    assert set(look.changed.values()) == {"[REDACTED:pin]"}


def test_row_filter_clean_row_changes_nothing(rows: RowFilter) -> None:
    """No finding, no change, in the first row and in those after it."""
    for _ in range(3):
        look = rows.look({"a": "fine", "n": 12345678901, "x": [None, True, 1.5]})
        assert (look.changed, look.found, look.action) == ({}, [], "keep")


def test_row_filter_short_clean_text_is_read_once_in_a_file_and_a_long_one_once_in_a_row() -> None:
    """Names of keys come in every row; long texts do not, and would fill the memory."""
    looked: list[str] = []

    def find(text: str) -> list[RuleMatch]:
        looked.append(text)
        return []

    rows = RowFilter(SafetyFilters(_POLICY, find=find))
    for _ in range(3):
        rows.look({"key": ["x" * 65] * 2, "again": "short"})
    long = ["x" * 65, f'"key": "{"x" * 65}"'] * 3
    assert sorted(looked) == sorted(["key", "again", "short", '"again": "short"', *long])


def test_row_filter_field_names_hide_keys_that_may_be_content(rows: RowFilter) -> None:
    """Names of fields are shown; a key that a rule finds, or that looks like content, is not."""
    assert rows.field_name(("messages", 2, "content")) == "messages[2].content"
    assert rows.field_name(("my RED", "x")) == "[REDACTED:red].x"
    assert rows.field_name(("Ann Miller, born 1970", 0)) == "(hidden)[0]"
    assert rows.field_name(("meta", None)) == "meta.(key)"
    assert rows.field_name(("a[0]",)) == "(hidden)"


def test_row_filter_rule_that_fails_blocks() -> None:
    """Nothing is known about a text on which the filters broke down, so the row does not pass."""

    def broken(text: str) -> list[RuleMatch]:
        if "bad" in text:
            raise RuntimeError("broken")
        return []

    rows = RowFilter(SafetyFilters(_POLICY, find=broken))
    look = rows.look({"a": "fine", "b": "bad"})
    assert (look.action, look.rule_id, look.place) == ("block", FAILURE, ("b",))


def test_finding_tally_counts_all_and_places_the_first() -> None:
    """Elements of lists are one field; the rest is counted as not listed; fields do not fill the memory."""
    tally = FindingTally(most_places=3)
    for number in range(1500):
        tally.add(number + 1, "items[7].x" if number < 10 else f"k_{number}", Finding("red", "regex", 4, 3))
    assert tally.by_rule == {"red": 1500}
    assert tally.by_field["items[].x"] == 10
    assert len(tally.by_field) == 1001
    assert tally.by_field["(other fields)"] == 1500 - 10 - 999
    assert tally.by_field.total() == 1500
    assert tally.places[0] == {"line": 1, "field": "items[7].x", "offset": 4, "length": 3, "rule": "red"}
    assert (len(tally.places), tally.not_listed) == (3, 1497)
    assert "RED" not in json.dumps(tally.places)
