"""Policies of a few rules, and random texts of fragments that those rules find in part or in full."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import parse_policy

MAIL_RULE = r"{id: mail, kind: pii, description: d, patterns: ['[a-z]+@[a-z]+\.test'], borders: word}"


def filters_of(name: str, *rules: str) -> SafetyFilters:
    """Return the filters of a policy with these rules, each in YAML."""
    return SafetyFilters(parse_policy("\n".join(["version: 1", "rules:", *(f"  - {rule}" for rule in rules)]), name))


def texts_of(fragments: Sequence[str], separators: Sequence[str], most: int) -> st.SearchStrategy[str]:
    """Return a strategy for texts of at most `most` fragments and separators."""
    pieces = st.one_of(st.sampled_from(fragments), st.sampled_from(separators))
    return st.lists(pieces, max_size=most).map("".join)
