"""A licence that was not allowed fails, and so does one that is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_licences import AllowList, Judgement, is_allowed, main, problems_of, read_allow_list
from installed_packages import NO_ANSWER, Package

ALLOWED = frozenset({"MIT", "Apache-2.0", "BSD-3-Clause"})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND AGPL-3.0-only", False),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
    ],
)
def test_is_allowed_expression_is_met_or_not(expression: str, expected: bool) -> None:
    """One side of OR, both sides of AND, and AND binds tighter."""
    assert is_allowed(expression, ALLOWED) is expected


@pytest.mark.parametrize("expression", ["", "MIT AND", "(MIT", "MIT)", "MIT, Apache-2.0", "OR MIT", "MIT MIT"])
def test_is_allowed_no_expression_raises(expression: str) -> None:
    """What cannot be read is not allowed."""
    with pytest.raises(ValueError, match=r"SPDX|missing|closed"):
        is_allowed(expression, ALLOWED)


@pytest.mark.parametrize(
    ("licence", "judged", "words"),
    [
        ("MIT", False, None),
        ("GPL-3.0-only", False, "not allowed"),
        (NO_ANSWER, False, "does not say"),
        ("MIT, or so", False, "not allowed"),
        (NO_ANSWER, True, None),
        ("MIT", True, "delete the judgement"),
    ],
)
def test_problems_of_a_package_by_its_licence(licence: str, judged: bool, words: str | None) -> None:
    """A judgement is for what does not pass by itself, and for nothing else."""
    allow_list = AllowList(ALLOWED, {"planted": Judgement("MIT", "a test")} if judged else {})
    problems = problems_of({"planted": Package("planted", "1", licence, ())}, allow_list)
    assert [words in problem for problem in problems] == ([True] if words else [])


@pytest.mark.parametrize("text", ["allowed = []", "", 'allowed = ["MIT"]\n[package.a]\nlicence = "GPL"\nreason = " "'])
def test_read_allow_list_without_substance_raises(text: str) -> None:
    """Nothing allowed, or a judgement without a reason."""
    with pytest.raises((ValueError, KeyError)):
        read_allow_list(text)


def test_main_planted_package_fails(tmp_path: Path, repository_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A licence not allowed is named, with its package; a directory without packages fails too."""
    empty = tmp_path / "empty"
    empty.mkdir()
    site = tmp_path / "site"
    (site / "planted-1.0.dist-info").mkdir(parents=True)
    metadata = site / "planted-1.0.dist-info" / "METADATA"
    metadata.write_text("Name: planted\nVersion: 1.0\nLicense-Expression: AGPL-3.0-only\n")
    assert main(["--root", str(repository_root), "--site-packages", str(site)]) == 1
    assert "planted 1.0 has the licence AGPL-3.0-only" in capsys.readouterr().out
    metadata.write_text("Name: planted\nVersion: 1.0\nLicense-Expression: MIT\n")
    assert main(["--root", str(repository_root), "--site-packages", str(site)]) == 0
    assert main(["--root", str(repository_root), "--site-packages", str(empty)]) == 1
    assert main(["--root", str(tmp_path), "--site-packages", str(site)]) == 1
