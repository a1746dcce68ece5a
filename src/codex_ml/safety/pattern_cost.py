"""Finds regular expressions whose matching can take for ever: each is tried on texts that are made of its own parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from codex_ml.limits import LimitExceededError, limited

# For one text; a sound pattern needs a thousandth of it.
PROBE_CPU_SECONDS = 0.5
# Long enough that what grows with the cube of the length passes the bound, short enough for what grows with its square.
_POLYNOMIAL_REPEATS = 1500
# What doubles with every character passes any bound at this length.
_EXPONENTIAL_REPEATS = 60
_MOST_PUMPS, _MOST_PAIRED = 12, 5
_COMMON_PUMPS = ("a", "0", " ", "-", "aA0", "\n")
# What no pattern expects, so that a match that was nearly found fails at its end.
_SPOILER = "\x00\u2603!"


def is_too_costly(pattern: str) -> bool:
    """Tell whether a pattern needs more time than a sound one for some text of a few thousand characters.

    The texts are pumped: characters the pattern speaks of, repeated, with an end that does not fit. That finds nested
    repeats and alternatives that overlap (the attack is that of Weideman et al. 2016, "Analyzing Matching Time Behavior
    of Backtracking Regular Expression Matchers by Using Ambiguity of NFA"). It is a test and no proof: what it misses,
    the bound on every single text stops.
    """
    compiled = re.compile(pattern)
    for text in _probes(pattern):
        try:
            with limited(PROBE_CPU_SECONDS):
                for _ in compiled.finditer(text):
                    pass
        except (LimitExceededError, RecursionError, MemoryError):
            return True
    return False


def _probes(pattern: str) -> Iterator[str]:
    prefix, pumps = _parts(pattern)
    for repeats in (_EXPONENTIAL_REPEATS, _POLYNOMIAL_REPEATS):
        for pump in pumps:
            yield prefix + pump * (repeats // len(pump)) + _SPOILER
            yield pump * (repeats // len(pump)) + _SPOILER


def _parts(pattern: str) -> tuple[str, list[str]]:
    """Return a text that the pattern's beginning fits, and the characters it speaks of, one by one and joined."""
    # The parser of `re`; its module has no public name since Python 3.11.
    parse: Any = getattr(re, "_parser").parse  # noqa: B009 - a private name, said openly
    characters = list(dict.fromkeys(_characters(parse(pattern))))
    joined = "".join(characters[:_MOST_PUMPS])
    pairs = ["".join(pair) for pair in product(characters[:_MOST_PAIRED], repeat=2)]
    pumps = [*characters[:_MOST_PUMPS], *_COMMON_PUMPS, *pairs, *([joined] if joined else [])]
    return joined, list(dict.fromkeys(pumps))


def _characters(tree: Iterable[Any]) -> Iterator[str]:
    """Yield one character for every place of a parsed pattern."""
    for operation, argument in tree:
        name = str(operation)
        if name == "LITERAL":
            yield chr(argument)
        elif name == "NOT_LITERAL":
            yield "b" if argument == ord("a") else "a"
        elif name == "ANY":
            yield "a"
        elif name == "IN":
            yield from _of_set(argument)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from _characters(branch)
        elif isinstance(argument, tuple):
            for part in argument:
                if hasattr(part, "data"):
                    yield from _characters(part)


def _of_set(members: Iterable[Any]) -> Iterator[str]:
    samples = {"CATEGORY_DIGIT": "0", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " "}
    for operation, argument in members:
        name = str(operation)
        if name == "NEGATE":
            yield "a"
            return
        if name == "LITERAL":
            yield chr(argument)
        elif name == "RANGE":
            yield chr(argument[0])
        elif name == "CATEGORY":
            yield samples.get(str(argument), "-")
