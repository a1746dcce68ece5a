"""The packaged filters, and filters of small policies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy, parse_policy


@pytest.fixture(scope="session")
def default_filters() -> SafetyFilters:
    """Return the filters with the packaged policy."""
    return SafetyFilters(load_policy("default"))


@pytest.fixture(scope="session")
def filters_of() -> Callable[..., SafetyFilters]:
    """Return a maker of filters from the text of rules, one a line."""

    def make(*rules: str, **options: object) -> SafetyFilters:
        lines = "".join(f"  - {{description: d, {rule}}}\n" for rule in rules)
        return SafetyFilters(parse_policy(f"version: 1\nrules:\n{lines}", "test"), **options)

    return make
