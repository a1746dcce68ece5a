"""Texts with what must not pass: each type of value in a dozen contexts, and texts that hold two."""

from __future__ import annotations

import random

from safety_set.contexts import CONTEXTS, Context
from safety_set.further_types_more import ALL_FURTHER
from safety_set.key_blocks import KEY_BLOCKS
from safety_set.labelled import Labelled, LabelledSpan, ValueType, labelled
from safety_set.person_types import COMMON_PERSONAL, RARE_PERSONAL
from safety_set.rare_secret_types import RARE_SECRETS
from safety_set.secret_types import COMMON_SECRETS

TYPES: tuple[ValueType, ...] = (*KEY_BLOCKS, *COMMON_SECRETS, *RARE_SECRETS, *COMMON_PERSONAL, *RARE_PERSONAL)
_TEXTS_OF_A_TYPE = 10
_TEXTS_WITH_TWO = 60
_SEED = 20_241_123


def positives() -> list[Labelled]:
    """Return the texts, the same at each call."""
    generator = random.Random(_SEED)
    texts = []
    for number, kind in enumerate(TYPES):
        for turn in range(_TEXTS_OF_A_TYPE):
            shown, value = kind.make(generator)
            context = _context_for(shown, number * 3 + turn)
            texts.append(labelled(context.before, shown, value, context.behind, kind.name, context.name))
    one_line = [kind for kind in TYPES if "\n" not in kind.make(random.Random(0))[0]]
    for turn in range(_TEXTS_WITH_TWO):
        first, second = generator.sample(one_line, 2)
        texts.append(_with_two(first, second, generator, (", ", "\n", " and ")[turn % 3]))
    return texts


def further() -> list[Labelled]:
    """Return ten texts of each of the further types, written by one who never saw the rules; the same at each call."""
    generator = random.Random(_SEED + 2)
    texts = []
    for number, kind in enumerate(ALL_FURTHER):
        for turn in range(_TEXTS_OF_A_TYPE):
            shown, value = kind.make(generator)
            context = _context_for(shown, number * 3 + turn)
            texts.append(labelled(context.before, shown, value, context.behind, kind.name, context.name))
    return texts


def _context_for(shown: str, start: int) -> Context:
    """Return the first context, from a place in the row on, that the value can stand in unharmed."""
    fitting = [c for c in CONTEXTS if (c.takes_lines or "\n" not in shown) and (c.takes_quotes or '"' not in shown)]
    return fitting[start % len(fitting)]


def _with_two(first: ValueType, second: ValueType, generator: random.Random, between: str) -> Labelled:
    text = ""
    spans = []
    for kind in (first, second):
        text += between if text else ""
        shown, value = kind.make(generator)
        start = len(text) + shown.index(value)
        spans.append(LabelledSpan(start, start + len(value), kind.name))
        text += shown
    return Labelled(text, tuple(spans), "two")
