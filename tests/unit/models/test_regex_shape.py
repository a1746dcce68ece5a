"""The structure of regular expressions: groups, classes and quantifiers in the syntax of Oniguruma."""

from __future__ import annotations

import pytest

from codex_ml.models.regex_shape import RegexSyntaxError, ambiguous_part, parse, sample_characters, sample_repetitions


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (r"x(a+)+y", "(a+)+"),
        (r"(?i:b|(?:c*d?)*)", "(?:c*d?)*"),
        (r"(?<name>[a\]+]+)*", r"(?<name>[a\]+]+)*"),
        (r"(a+)++", None),
        (r"(?>a+)+", None),
        (r"(a++)+", None),
        (r"(?:\r?\n)+", None),
        (r"(?:-\p{L}+)*", None),
        (r"[(a+)+]+", None),
        (r"\(a+\)+", None),
        (r"(?#a+)a", None),
        (r"(?:a|b|ab)+", None),
        (r"(a{2,}){3,}", "(a{2,}){3,}"),
        (r"(a{2}){3}", None),
    ],
)
def test_ambiguous_part_is_found_by_structure(expression: str, part: str | None) -> None:
    """Nested repetitions with nothing between them are ambiguous; possessive ones do not backtrack."""
    assert ambiguous_part(parse(expression)) == part


@pytest.mark.parametrize("expression", ["(a", "a)", "[a", "(" * 100 + ")" * 100, "a\\"])
def test_parse_unreadable_expression_is_an_error(expression: str) -> None:
    """The parser raises; the library decides whether the expression is valid."""
    with pytest.raises(RegexSyntaxError):
        parse(expression)


def test_sample_characters_are_the_literals() -> None:
    """Operators, character classes and counts are left out; each literal occurs once."""
    assert sample_characters(r"q(z|zz)+\p{L}{2,3}", 10) == ["q", "z"]
    assert len(sample_characters("abcdefgh", 3)) == 3


def test_sample_repetitions_lead_a_match_to_each_repetition() -> None:
    """The prefix covers groups, classes and counts; optional parts are left out."""
    found = sample_repetitions(parse(r"z{2}(?:q)[k]x?.*!"))
    assert found == [("", "zzq"), ("", "zzqk"), ("zzqk", "a"), ("", "zzqk!")]
    assert sample_repetitions(parse(r"\x41\p{N}+|[^!a]\s")) == [("", "A"), ("A", "1"), ("", "A1"), ("", "  ")]
    assert sample_repetitions(parse(r"\b$")) == []
