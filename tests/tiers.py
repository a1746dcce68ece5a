"""The two tiers of the test suite: `make test` samples; the parts of `make test-full` are exhaustive."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

_FULL_FACTOR = 20


def load_profile(full: bool) -> None:
    """Choose how many examples Hypothesis tries: few and always the same ones, or many random ones."""
    profile = settings(deadline=None, derandomize=not full, max_examples=100 * (_FULL_FACTOR if full else 1))
    settings.register_profile("codex-ml", profile)
    settings.load_profile("codex-ml")


def examples(count: int, **values: Any) -> settings:
    """Return settings for a property: the number of examples in `make test`, and more in `make test-full`."""
    full = not settings.default.derandomize
    return settings(max_examples=count * (_FULL_FACTOR if full else 1), **values)
