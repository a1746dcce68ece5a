"""The page on safety says what is so: its policy loads, its tests exist, its rules and files have these names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import parse_policy

pytestmark = pytest.mark.safety


@pytest.fixture(scope="module")
def page(repository_root: Path) -> str:
    """Return the page."""
    return (repository_root / "docs" / "explanation" / "safety-filters.md").read_text(encoding="utf-8")


def test_safety_page_policy_of_ones_own_works_as_written(page: str) -> None:
    """It loads, takes a packaged rule out, finds its badge and its project, and lets the sample pass."""
    match = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert match is not None
    policy = parse_policy(match[1], "own")
    assert "mac_address" not in {rule.id for rule in policy.rules}
    filtered = SafetyFilters(policy).apply("B-12345 and B-00000 of Red Kite")
    assert filtered.text == "[REDACTED:badge] and B-00000 of [REDACTED:project_names]"
    assert filtered.action == "drop"


def test_safety_page_named_tests_exist(page: str, repository_root: Path) -> None:
    """No claim rests on a test that is not there."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (repository_root / name).is_file()] == []
    functions = set(re.findall(r"`(test_\w+)`", page))
    text = "".join(path.read_text("utf-8") for path in (repository_root / "tests" / "integration").glob("*.py"))
    assert functions
    assert [name for name in sorted(functions) if f"def {name}(" not in text] == []
    assert (repository_root / "tests" / "integration" / "test_filters_fail_closed.py").is_file()
