"""Properties of the safety filters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.safety.filters import SafetyFilters
from tiers import examples

pytestmark = pytest.mark.safety

common = examples(150)
fragments = st.sampled_from(
    [
        "jane@example.com",
        "https://user:word@host.example/",
        "+1 212 555 0187",
        "4111 1111 1111 1111",
        "ghp_" + "a1" * 18,
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "do not distribute",
        "[REDACTED:email]",
        "[REDACTED:",
        "]",
        "://",
        ":",
        "@",
        ".com",
        "212-555-",
        "0187",
        "phone ",
        "ß",
        "İ",
        "\u2028",
        " ",
        "a",
    ]
)
texts = st.one_of(st.lists(fragments, max_size=10).map("".join), st.text(max_size=40))
json_values = st.recursive(
    texts | st.integers() | st.booleans() | st.none(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=6,
)


@common
@given(text=texts)
def test_apply_twice_changes_nothing(default_filters: SafetyFilters, text: str) -> None:
    """What came out of the filters passes them untouched."""
    once = default_filters.apply(text)
    again = default_filters.apply(once.text)
    assert (again.text, again.findings, again.action) == (once.text, (), "keep")


@common
@given(text=st.text(alphabet="abkey=1 ", max_size=30))
def test_apply_twice_changes_nothing_where_rules_feed_each_other(
    filters_of: Callable[..., SafetyFilters], text: str
) -> None:
    """Also under rules that match across each other's markers."""
    filters = filters_of(
        "id: a, kind: regex, patterns: ['a[b1]']",
        r"id: key, kind: regex, patterns: ['k?ey?=\S{1,14}(?:\s|$)']",
        r"id: tail, kind: regex, patterns: ['\]1+']",
        "id: p, kind: phrase, phrases: ['b redacted', 'a b']",
    )
    once = filters.apply(text)
    again = filters.apply(once.text)
    assert (again.text, again.action) == (once.text, "keep")


@common
@given(text=texts)
def test_apply_findings_are_exactly_what_was_replaced(default_filters: SafetyFilters, text: str) -> None:
    """Putting the markers at the findings' places gives the filtered text; findings are in order and apart."""
    filtered = default_filters.apply(text)
    parts: list[str] = []
    position = 0
    for finding in filtered.findings:
        assert finding.start >= position
        assert finding.length > 0
        parts += [text[position : finding.start], f"[REDACTED:{finding.rule_id}]"]
        position = finding.start + finding.length
    assert "".join([*parts, text[position:]]) == filtered.text


@common
@given(before=texts, after=texts)
def test_apply_planted_secret_never_survives(default_filters: SafetyFilters, before: str, after: str) -> None:
    """Whatever stands around it, apart by spaces, an address is never in the result."""
    secret = "planted.secret@hidden-host.example"
    assert secret not in default_filters.redact(f"{before} {secret} {after}")


@common
@given(name=st.sampled_from(["password", "token", "phone", "patient_id", "note"]), text=texts)
def test_apply_by_its_key_twice_changes_nothing(default_filters: SafetyFilters, name: str, text: str) -> None:
    """What is left under a key is what would be left of it again; nothing is found less than without the key."""
    once = default_filters.apply(text, name)
    again = default_filters.apply(once.text, name)
    assert (again.text, again.action) == (once.text, "keep")
    if default_filters.apply(text).findings:
        assert once.findings


@common
@given(value=json_values)
def test_redact_value_twice_changes_nothing(default_filters: SafetyFilters, value: object) -> None:
    """Nested values are stable too."""
    once = default_filters.redact_value(value)
    assert default_filters.redact_value(once) == once
