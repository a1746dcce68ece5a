"""Texts in which nothing is to be found: hard ones, which look as if, and ordinary ones."""

from __future__ import annotations

import random

from safety_set.hard_phrases import CODE, PLACEHOLDERS, PROSE
from safety_set.hard_values import VALUES
from safety_set.labelled import Labelled
from safety_set.ordinary import KINDS, ordinary_text

_TEXTS_OF_A_VALUE = 12
_TEXTS_OF_A_KIND = 24
_SEED = 20_241_124


def hard_negatives() -> list[Labelled]:
    """Return texts that look as if they held something, the same at each call and each only once."""
    generator = random.Random(_SEED)
    texts: dict[str, str] = {}
    for kind, forms, make in VALUES:
        for turn in range(_TEXTS_OF_A_VALUE):
            form = forms[turn % len(forms)]
            while "{}" in form:
                form = form.replace("{}", make(generator), 1)
            texts.setdefault(form, kind)
    for kind, collection in (("placeholder", PLACEHOLDERS), ("code", CODE), ("prose", PROSE)):
        for text in collection:
            texts.setdefault(text, kind)
            texts.setdefault(f"```\n{text}\n```" if kind != "prose" else f"Note: {text}", kind)
    return [Labelled(text, (), kind) for text, kind in texts.items()]


def ordinary_texts() -> list[Labelled]:
    """Return prose, code, tables and sums, the same at each call and each only once."""
    generator = random.Random(_SEED + 1)
    texts: dict[str, str] = {}
    for kind in KINDS:
        for _ in range(_TEXTS_OF_A_KIND):
            texts.setdefault(ordinary_text(generator, kind), kind)
    return [Labelled(text, (), kind) for text, kind in texts.items()]
