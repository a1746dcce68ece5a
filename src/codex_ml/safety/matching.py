"""All rules of a policy on one text: one pass of a set of patterns tells which can match, and those look closer.

The rules read the text as it was given and its views (`codex_ml.safety.folding`), in which formatting is undone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from codex_ml.safety.folding import View, has_views, views_of
from codex_ml.safety.identifiers import Check, check_of
from codex_ml.safety.patterns import NUMBERS, BytesPattern, ExpressionSet, PhraseFinder, group_of, shared_set, widened
from codex_ml.safety.policy import Permission, Rule

# How far `unless_after` and `unless_before` see.
_NEIGHBOURHOOD_BYTES = 64
# No check is asked about more than this, nor more often for one text: what has the form is then marked. A text made of
# near misses would otherwise cost the square of its length, or minutes.
_LONGEST_CHECKED_BYTES = 512
_MOST_REFUSED = 20_000
# How often all of a text may be read again by one pattern; a policy of one's own may hold any.
_MOST_READ_AGAIN = 64
# A text of this length with this share of digits is made of numbers.
_DENSE_FROM_BYTES, _DENSE_SHARE = 1 << 14, 0.25
# Checks that what was joined over two lines passes only if it is a value: a finding in it needs no other reason.
_STRONG_CHECKS = frozenset({"card", "iban"})


class RuleMatch(NamedTuple):
    """A rule, and the span in characters at which it applies to a text."""

    rule: Rule
    start: int
    end: int


class RuleFailedError(Exception):
    """A rule that could not be applied to a text, so that nothing is known about it."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.id)
        self.rule = rule


class PolicyMatcher:
    """Finds every span of a text to which a rule applies.

    Parameters
    ----------
    rules : sequence of Rule
        In the order in which their matches are returned.
    permissions : sequence of Permission
        What may pass although a rule finds it.
    """

    def __init__(self, rules: Sequence[Rule], permissions: Sequence[Permission] = ()) -> None:
        self._finders: list[_PatternFinder] = []
        self._phrase_rules: list[Rule] = []
        phrases: list[str] = []
        groups: dict[str, list[int]] = {}
        for rule in rules:
            self._phrase_rules.extend([rule] * len(rule.phrases))
            phrases.extend(rule.phrases)
            for pattern in rule.patterns:
                groups.setdefault(group_of(pattern, rule.borders), []).append(len(self._finders))
                self._finders.append(_PatternFinder(rule, pattern, permissions))
        self._sets = [
            (_set_of([self._finders[number] for number in numbers]), numbers, name == NUMBERS)
            for name, numbers in groups.items()
        ]
        self._phrases = PhraseFinder(phrases) if phrases else None

    def find(self, text: str) -> list[RuleMatch]:
        """Return what the rules find, rule by rule.

        Raises
        ------
        RuleFailedError
            If a rule breaks down on the text.
        """
        # A lone surrogate is no character of UTF-8; one byte replaces it, so that positions stay equal.
        data = text.encode("utf-8", "replace")
        matches = self._find_in(text, data)
        for view in views_of(text, data) if has_views(text, data) else ():
            found = self._find_in(view.text, view.text.encode("utf-8", "replace"))
            if found:
                matches += _only_in_view(view, found, matches)
        return matches

    def find_open(self, text: str) -> int | None:
        """Return where the first long span begins that has not ended in the text, in characters."""
        data = text.encode("utf-8", "replace")
        start = self._find_open_in(data)
        for view in views_of(text, data):
            in_view = None if view.is_joined else self._find_open_in(view.text.encode("utf-8", "replace"))
            if in_view is not None:
                begin = view.to_original(in_view, in_view + 1)[0]
                start = begin if start is None else min(start, begin)
        return start

    def _find_open_in(self, data: bytes) -> int | None:
        starts = [start for finder in self._finders if (start := finder.find_open(data)) is not None]
        return len(data[: min(starts)].decode("utf-8")) if starts else None

    def _find_in(self, text: str, data: bytes) -> list[RuleMatch]:
        is_dense = len(data) >= _DENSE_FROM_BYTES and _is_mostly_digits(data)
        candidates: list[int] = []
        for patterns, numbers, is_numeric in self._sets:
            if is_numeric and is_dense:
                candidates += numbers
            elif found := patterns.found_in(data):
                candidates += (numbers[index] for index in found)
        matches: list[RuleMatch] = []
        for number in sorted(candidates):
            finder = self._finders[number]
            matches += _in_characters(finder.rule, finder.find(data), text, data)
        if self._phrases is not None:
            matches += self._find_phrases(text)
        return matches

    def _find_phrases(self, text: str) -> list[RuleMatch]:
        assert self._phrases is not None
        try:
            found = self._phrases.find(text)
        except Exception as error:
            raise RuleFailedError(self._phrase_rules[0]) from error
        return [RuleMatch(self._phrase_rules[number], start, end) for number, (start, end) in found]


class _PatternFinder:
    """One pattern of a rule, with the rule's checks and permissions; compiled when a text may match it."""

    def __init__(self, rule: Rule, pattern: str, permissions: Sequence[Permission]) -> None:
        self.rule = rule
        self.source = pattern
        self._permissions = permissions

    @cached_property
    def _pattern(self) -> BytesPattern:
        return BytesPattern(self.source, self.rule.borders)

    @cached_property
    def _until(self) -> BytesPattern | None:
        return None if self.rule.until is None else BytesPattern(self.rule.until)

    @cached_property
    def _checks(self) -> list[Check]:
        return [check_of(name) for name in self.rule.checks]

    @cached_property
    def _allowed(self) -> BytesPattern | None:
        permitted = (permission.patterns for permission in self._permissions if self.rule.id in permission.rules)
        return _any_of([*self.rule.allow, *chain.from_iterable(permitted)])

    @cached_property
    def _unless_after(self) -> BytesPattern | None:
        return _any_of([rf"(?:{pattern})\z" for pattern in self.rule.unless_after])

    @cached_property
    def _unless_before(self) -> BytesPattern | None:
        return _any_of([rf"\A(?:{pattern})" for pattern in self.rule.unless_before])

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Return the spans in bytes."""
        spans: list[tuple[int, int]] = []
        position = refused = read_again = 0
        most_refused = _MOST_REFUSED + len(data) // 200
        try:
            while (match := self._pattern.search(data, position)) is not None:
                outer, start, end, reached = match
                if start == end:
                    raise ValueError("matched an empty span")
                if read_again > _MOST_READ_AGAIN * (len(data) + (1 << 14)):
                    # Matches that reach far beyond where the next may begin would cost the square of the length.
                    spans.append((start, len(data)))
                    break
                if self._checks and refused < most_refused and not self._is_sound(data[start:end]):
                    # What is no number of its kind may hide one that begins inside it.
                    position = max(start, outer + 1)
                    refused += 1
                elif self._stays(data, start, end):
                    position = end
                else:
                    if self._until is not None:
                        end = self._end_of(data, end)
                    spans.append((start, end))
                    # The border behind this match may be the one before the next.
                    position = end
                read_again += max(0, reached - position)
        except Exception as error:
            raise RuleFailedError(self.rule) from error
        return spans

    def find_open(self, data: bytes) -> int | None:
        """Return the start of a span that continues beyond the data, or None."""
        if self.rule.until is None:
            return None
        position = 0
        while (match := self._pattern.search(data, position)) is not None:
            assert self._until is not None
            ending = self._until.search(data, match[2])
            if ending is None:
                return match[1]
            position = ending[2]
        return None

    def _end_of(self, data: bytes, start: int) -> int:
        assert self._until is not None
        ending = self._until.search(data, start)
        return len(data) if ending is None else max(ending[2], start)

    def _is_sound(self, found: bytes) -> bool:
        if len(found) > _LONGEST_CHECKED_BYTES:
            return True
        text = found.decode("utf-8", "replace")
        return all(check(text) for check in self._checks)

    def _stays(self, data: bytes, start: int, end: int) -> bool:
        if self._allowed is not None and self._allowed.fits(data[start:end]):
            return True
        if self._unless_after is not None:
            before = data[max(0, start - _NEIGHBOURHOOD_BYTES) : start]
            if self._unless_after.found_in(before):
                return True
        return self._unless_before is not None and self._unless_before.found_in(data[end : end + _NEIGHBOURHOOD_BYTES])


def _only_in_view(view: View, found: Sequence[RuleMatch], known: Sequence[RuleMatch]) -> list[RuleMatch]:
    """Return what a view shows beyond what is known already, as spans of the original text."""
    of_rule: dict[str, _Coverage] = {}
    everything = _Coverage(known) if view.is_joined else None
    further = []
    for match in found:
        if view.is_joined and not view.crosses_edit(match.start, match.end):
            continue
        start, end = view.to_original(match.start, match.end)
        if everything is not None and everything.touches(start, end) and _STRONG_CHECKS.isdisjoint(match.rule.checks):
            # A complete value ends a line; what begins the next is another one.
            continue
        if match.rule.id not in of_rule:
            of_rule[match.rule.id] = _Coverage([other for other in known if other.rule.id == match.rule.id])
        if not of_rule[match.rule.id].covers(start, end):
            further.append(RuleMatch(match.rule, start, end))
    return further


class _Coverage:
    """What some matches cover together, as stretches in order."""

    def __init__(self, matches: Sequence[RuleMatch]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted((match.start, match.end) for match in matches):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def covers(self, start: int, end: int) -> bool:
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and end <= self._ends[index]

    def touches(self, start: int, end: int) -> bool:
        index = bisect_right(self._ends, start)
        return index < len(self._starts) and self._starts[index] < end


def _is_mostly_digits(data: bytes) -> bool:
    """Tell whether a text is made of numbers.

    In a long one the set of all patterns for numbers is in the middle of most of them at once. Each combination is a
    state of its automaton, for which 64 MiB are not enough. The patterns one by one are ten times as fast.
    """
    return len(data) - len(data.translate(None, b"0123456789")) > len(data) * _DENSE_SHARE


def _set_of(finders: Sequence[_PatternFinder]) -> ExpressionSet:
    return shared_set(tuple(widened(finder.source, finder.rule.borders) for finder in finders))


def _any_of(patterns: Sequence[str]) -> BytesPattern | None:
    return BytesPattern("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def _in_characters(rule: Rule, spans: Sequence[tuple[int, int]], text: str, data: bytes) -> list[RuleMatch]:
    """Turn spans in bytes, in their order, into matches in characters."""
    if len(data) == len(text):
        return [RuleMatch(rule, start, end) for start, end in spans]
    matches = []
    byte = character = 0
    for start, end in spans:
        first = character + len(data[byte:start].decode("utf-8", "replace"))
        byte, character = end, first + len(data[start:end].decode("utf-8", "replace"))
        matches.append(RuleMatch(rule, first, character))
    return matches
