"""The documentation site loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

# What a browser fetches by itself; a link that a reader may follow is none of it.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|link|source)\b[^>]*?\b(?:src|href)=["']?(?P<place>(?:https?:)?//[^"'\s>]+)"""
)
_CANONICAL = re.compile(r"""<link\b[^>]*rel=["']?(?:canonical|alternate)""")


def fetched_from_elsewhere(page: str) -> list[str]:
    """Return every address outside the site that a browser would load with a page."""
    return [match["place"] for match in _FETCHED.finditer(page) if not _CANONICAL.match(match.group())]


def test_fetched_from_elsewhere_planted_script_is_found() -> None:
    """The search itself finds a script and a font, and leaves links and the site's own files alone."""
    page = '<script src="https://unpkg.com/shim"></script><link rel=stylesheet href=//fonts.example/a.css>'
    assert fetched_from_elsewhere(page) == ["https://unpkg.com/shim", "//fonts.example/a.css"]
    assert fetched_from_elsewhere('<a href="https://example.com">x</a><script src="assets/a.js"></script>') == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra 'docs' is not installed")
def test_docs_build_strict_pages_load_nothing_from_elsewhere(repository_root: Path, tmp_path: Path) -> None:
    """The theme's plugin for offline use put a script of unpkg.com into every page."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    answer = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert pages
    assert [place for page in pages for place in fetched_from_elsewhere(page.read_text(encoding="utf-8"))] == []
    styles = [style.read_text(encoding="utf-8") for style in (tmp_path / "site").rglob("*.css")]
    assert not any(re.search(r"url\([\"']?(?:https?:)?//", style) for style in styles)
