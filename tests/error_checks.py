"""Checks of the stable code of an error, on exceptions and on printed blocks."""

from __future__ import annotations

from codex_ml.errors import ConfigError


def has_code(error: BaseException | str, code: str) -> bool:
    """Return whether an exception, one of its configuration problems, or printed stderr has a code."""
    if isinstance(error, str):
        return any(line.strip() == f"code: {code}" for line in error.splitlines())
    if isinstance(error, ConfigError) and any(problem.code == code for problem in error.problems):
        return True
    return getattr(error, "code", "") == code
