"""Exemptions from the semgrep rules."""

from __future__ import annotations

import pytest

from semgrep_exemptions import read_exemptions

RULE = "no-dynamic-import"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (f"load(name)  # allowed: {RULE}, a table of our own\n", 1),
        (f"    # allowed: {RULE}, a table of our own\n    load(name)\n", 2),
    ],
    ids=["same line", "line above"],
)
def test_covers_exempted_line_only(source: str, line: int) -> None:
    """A comment covers one line, one rule and one file."""
    exemptions = read_exemptions({"a.py": source})
    assert exemptions.covers("a.py", line, RULE)
    assert not exemptions.covers("a.py", line + 1, RULE)
    assert not exemptions.covers("a.py", line, "no-dynamic-attribute")
    assert not exemptions.covers("b.py", line, RULE)
    assert exemptions.all_problems() == []


def test_all_problems_unused_exemption_is_one() -> None:
    """An exemption without a finding would hide a later violation of the line."""
    exemptions = read_exemptions({"a.py": f"# allowed: {RULE}, a table of our own\nload('mlflow')\n"})
    assert exemptions.all_problems() == [f"a.py:1: exempts from {RULE}, which finds nothing there: delete the comment"]


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("# allowed: no-eval, a good reason is given", "accepts no exemption"),
        (f"# allowed: {RULE} no-pickle, a good reason is given", "no-pickle accepts no exemption"),
        (f"# allowed: {RULE}", "no reason"),
        (f"# allowed: {RULE}, yes", "no reason"),
        ("# allowed: , a good reason is given", "names no rule"),
    ],
)
def test_read_exemptions_wrong_comment_exempts_nothing(comment: str, words: str) -> None:
    """The rule accepts no exemption, or the reason or the rule is missing."""
    exemptions = read_exemptions({"a.py": f"load(name)  {comment}\n"})
    assert not exemptions.covers("a.py", 1, RULE)
    assert not exemptions.covers("a.py", 1, "no-eval")
    (problem,) = exemptions.all_problems()
    assert words in problem


def test_read_exemptions_text_of_that_form_is_no_comment() -> None:
    """Only a comment exempts; after a syntax error no comment counts."""
    assert not read_exemptions({"a.py": f'a = """\n# allowed: {RULE}, a table of our own\n"""\n'}).lines
    assert not read_exemptions({"a.py": f"(\n# allowed: {RULE}, a table of our own"}).problems
