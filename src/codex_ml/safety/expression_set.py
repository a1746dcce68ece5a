"""Several expressions of RE2 tried in one pass over a text: which of them match somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2

# For the states of a set; what does not fit is computed again and again.
_MEMORY_BYTES = 64 << 20


class ExpressionSet:
    """Tells which of several expressions match somewhere in a text.

    Parameters
    ----------
    expressions : sequence of str
        Expressions of RE2.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        options = re2.Options()
        options.max_mem, options.log_errors = _MEMORY_BYTES, False
        self._count = len(expressions)
        self._nothing = [self._count]
        self._set: Any = re2.Set.SearchSet(options)
        # The empty expression, added last, matches everywhere: see `trusted`.
        for expression in (*expressions, ""):
            self._set.Add(expression.encode())
        self._set.Compile()

    def found_in(self, data: bytes) -> Sequence[int]:
        """Return the numbers of the expressions that match, in order; all of them where that cannot be told."""
        answer = self._set.Match(data)
        # Nearly every text: nothing but the last expression.
        if answer == self._nothing:
            return ()
        return trusted(answer, self._count)


@lru_cache(maxsize=64)
def shared_set(expressions: tuple[str, ...]) -> ExpressionSet:
    """Return the set of some expressions, compiled once a process: one job builds several filters of one policy."""
    return ExpressionSet(expressions)


def trusted(answer: Sequence[int] | None, count: int) -> Sequence[int]:
    """Return what an answer of a set says of its first ``count`` expressions.

    A set that runs out of memory answers that nothing matches. The expression behind the others matches everywhere, so
    where it is missing the answer says nothing, and every expression may match.
    """
    if answer is None or count not in answer:
        return range(count)
    return sorted(answer)[:-1] if len(answer) > 1 else ()
