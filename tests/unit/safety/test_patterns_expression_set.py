"""Several expressions in one pass, and what silence means."""

from __future__ import annotations

import pytest

from codex_ml.safety.patterns import ExpressionSet, trusted

pytestmark = pytest.mark.safety


def test_found_in_names_each_expression_that_matches_once() -> None:
    """In the order of the expressions, wherever and however often they match."""
    expressions = ExpressionSet(["b[0-9]", "nowhere", "a+", "é"])
    assert list(expressions.found_in(b"b1 aa a b2")) == [0, 2]
    assert list(expressions.found_in("é".encode())) == [3]
    assert list(expressions.found_in(b"")) == []


@pytest.mark.parametrize("answer", [None, [], [0], [2, 1]])
def test_trusted_answer_without_the_last_expression_says_nothing(answer) -> None:
    """A set that ran out of memory answers that nothing matches: then everything may."""
    assert list(trusted(answer, 3)) == [0, 1, 2]


def test_trusted_answer_with_the_last_expression_is_taken() -> None:
    """It is no expression of the caller's, and stays out of what is returned."""
    assert list(trusted([3, 1, 0], 3)) == [0, 1]
    assert list(trusted([3], 3)) == []
