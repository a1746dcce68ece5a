"""Two decisions once had one number: each has its own, and what refers to one finds it."""

from __future__ import annotations

import re
from pathlib import Path

_LINK = re.compile(r"decisions/(\d{4}-[a-z0-9-]+\.md)")


def test_decisions_numbers_are_unique_gapless_and_in_their_titles(repository_root: Path) -> None:
    """From 0001 on, one decision a number; the title begins with it."""
    pages = sorted((repository_root / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert numbers == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    titles = [page.read_text("utf-8").split("\n", 1)[0] for page in pages]
    assert [title[:7] for title in titles] == [f"# {number} " for number in numbers]


def test_decisions_that_pages_link_to_are_there(repository_root: Path) -> None:
    """A decision that gets another number takes its references along."""
    pages = [repository_root / "README.md", *(repository_root / "docs").rglob("*.md")]
    pages += (repository_root / "src").rglob("*.md")
    linked = {name for page in pages for name in _LINK.findall(page.read_text("utf-8"))}
    assert linked
    assert not [name for name in linked if not (repository_root / "docs" / "decisions" / name).is_file()]
