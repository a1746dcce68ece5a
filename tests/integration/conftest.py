"""Shared fixture of the integration tests: the application of the service over fake models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from served_app import Make


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a function that makes applications; their models are stopped after the test."""
    from served_app import applications

    yield from applications()
