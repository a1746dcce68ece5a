"""How found spans become markers: overlaps joined, the text with markers, and the way back from it to the original."""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from codex_ml.safety.matching import RuleMatch
from codex_ml.safety.policy import RuleAction

SEVERITY: dict[RuleAction | str, int] = {"keep": 0, "redact": 1, "drop": 2, "block": 3}


class Markers:
    """Writes the marker of a finding, and recognizes markers in a text.

    Parameters
    ----------
    rule_ids : sequence of str
        Rules whose markers are known; what another name is dressed in hides nothing.
    pseudonyms : bool
        Whether a value keeps a number: ``[REDACTED:email:3]`` is the same address everywhere. The numbers count
        values in the order in which they were met, so that nothing of a value is in its number.
    """

    def __init__(self, rule_ids: Sequence[str], *, pseudonyms: bool = False) -> None:
        names = "|".join(map(re.escape, rule_ids)) or "(?!)"
        self._known = re.compile(rf"\[REDACTED:(?:{names})(?::[0-9]{{1,6}})?\]")
        self._pseudonyms = pseudonyms
        self._numbers: dict[bytes, int] = {}
        self._last_number: Counter[str] = Counter()
        # The values themselves are not kept; without the key their digests could be tried out.
        self._key = os.urandom(32)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the positions of markers of known rules in a text."""
        return [match.span() for match in self._known.finditer(text)] if "[REDACTED:" in text else []

    def write(self, rule_id: str, value: str) -> str:
        """Return the marker for a value."""
        if not self._pseudonyms:
            return marker(rule_id)
        content = f"{rule_id}\n{' '.join(value.split()).casefold()}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, key=self._key, digest_size=16).digest()
        if digest not in self._numbers:
            self._last_number[rule_id] += 1
            self._numbers[digest] = self._last_number[rule_id]
        return f"[REDACTED:{rule_id}:{self._numbers[digest]}]"


def marker(rule_id: str) -> str:
    """Return the replacement of a text that a rule found."""
    return f"[REDACTED:{rule_id}]"


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered text and the stretch of the original that it represents, verbatim or as a marker."""

    start: int
    end: int
    original_start: int
    original_end: int
    is_marker: bool


def merge(matches: Sequence[RuleMatch]) -> list[RuleMatch]:
    """Join overlapping matches; the severest rule gives its name, then the first, then the longest."""
    ordered = sorted(matches, key=lambda match: (match.start, -match.end, -SEVERITY[match.rule.action]))
    merged: list[RuleMatch] = []
    for match in ordered:
        if merged and match.start < merged[-1].end:
            last = merged[-1]
            rule = match.rule if SEVERITY[match.rule.action] > SEVERITY[last.rule.action] else last.rule
            merged[-1] = RuleMatch(rule, last.start, max(last.end, match.end))
        else:
            merged.append(match)
    return merged


def render(text: str, matches: Sequence[RuleMatch], markers: Markers) -> tuple[str, list[Piece]]:
    """Replace each match by its marker; also return which stretch of the result represents which of the original."""
    parts: list[str] = []
    pieces: list[Piece] = []
    length = 0

    def add(part: str, start: int, end: int, *, is_marker: bool) -> None:
        nonlocal length
        parts.append(part)
        pieces.append(Piece(length, length + len(part), start, end, is_marker))
        length += len(part)

    position = 0
    for match in matches:
        add(text[position : match.start], position, match.start, is_marker=False)
        written = markers.write(match.rule.id, text[match.start : match.end])
        add(written, match.start, match.end, is_marker=True)
        position = match.end
    add(text[position:], position, len(text), is_marker=False)
    return "".join(parts), pieces


def to_original(match: RuleMatch, pieces: Sequence[Piece]) -> RuleMatch:
    """Return a match in a rendered text as a span of the original; a touched marker counts as a whole."""
    starts: list[int] = []
    ends: list[int] = []
    # Pieces are in order and do not overlap: the first that may touch the match is found by halving.
    first = bisect_right(pieces, match.start, key=lambda piece: piece.end)
    for piece in (pieces[index] for index in range(first, len(pieces))):
        if piece.start >= match.end:
            break
        if piece.start < match.end and match.start < piece.end:
            offset = piece.original_start - piece.start
            starts.append(piece.original_start if piece.is_marker else max(match.start, piece.start) + offset)
            ends.append(piece.original_end if piece.is_marker else min(match.end, piece.end) + offset)
    return RuleMatch(match.rule, min(starts), max(ends))
