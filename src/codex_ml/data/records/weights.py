"""How often a record stands in an epoch where its file has a weight: decided by its own bytes alone."""

from __future__ import annotations

import math
from fractions import Fraction

from codex_ml.data.splits.hash import HASH_RANGE, SplitHasher

# Another key than that of any split, so that who is left out does not hang on who is in train.
_hasher = SplitHasher(-1)


def repeat_count(raw: bytes, weight: float) -> int:
    """Return how many times a record stands in an epoch.

    The whole part of the weight stands for each record; of what is left over, as many records have one more as that
    share of all hashes. Adding or shuffling records changes nothing for the others, and equal records fare alike.

    Parameters
    ----------
    raw : bytes
        The record as it stands in the file.
    weight : float
        1: once; 2: twice; 0.5: every other record once, the others not at all.
    """
    if weight == 1:
        return 1
    whole = math.floor(weight)
    rest = Fraction(str(weight)) - whole
    return whole + (rest > 0 and _hasher(raw) < rest * HASH_RANGE)
