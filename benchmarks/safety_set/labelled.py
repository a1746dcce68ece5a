"""What a labelled text is: its words, and where in them something stands that must not pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledSpan:
    """A stretch of a text that must not pass, in characters, and what it is (such as ``github_classic_token``)."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Labelled:
    """A text with all that must not pass in it; a negative has none.

    Attributes
    ----------
    text : str
        As a record, a log line or an answer would hold it.
    spans : tuple of LabelledSpan
        In order, apart.
    context : str
        Where it stands (``code_fence``, ``log_line``), or of a negative what it resembles (``placeholder``, ``prose``).
    """

    text: str
    spans: tuple[LabelledSpan, ...]
    context: str


@dataclass(frozen=True)
class ValueType:
    """A kind of value: its name, how one is made from a generator, and whether everybody meets it.

    ``make`` returns the text as it must stand to be recognised (with a name before it where the format alone says
    nothing), and the value in it that must not pass.
    """

    name: str
    make: Callable[[random.Random], tuple[str, str]]
    is_common: bool


def labelled(before: str, shown: str, value: str, behind: str, type_name: str, context: str) -> Labelled:
    """Return a text in which ``value``, a part of ``shown``, is labelled."""
    start = len(before) + shown.index(value)
    return Labelled(before + shown + behind, (LabelledSpan(start, start + len(value), type_name),), context)
