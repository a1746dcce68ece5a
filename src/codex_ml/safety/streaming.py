"""The filters on a text that comes in pieces: what may be shown is given out line by line, in constant memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codex_ml.safety.filters import FAILURE, Action, Filtered, Finding, SafetyFilters
from codex_ml.safety.patterns import fold
from codex_ml.safety.policy import RuleKind
from codex_ml.safety.rendering import SEVERITY, marker

# More than this without a line end, or without any place to divide it, is not kept waiting for one.
MOST_HELD_CHARACTERS = 64 * 1024
# Text already given out that is judged again with what follows: a key on one line, its value on the next.
_CONTEXT_CHARACTERS = 1024
_MOST_CONTEXT_CHARACTERS = 4096
# Kept back where a line is divided, and kept of a long span to know its end by.
_TAIL_CHARACTERS = 4096
# A long span that has not ended is kept whole up to here.
_MOST_OPEN_CHARACTERS = 8192


@dataclass(frozen=True)
class TextPosition:
    """A place in a text: characters before it, and line and column counted from 1."""

    offset: int = 0
    line: int = 1
    column: int = 1

    def after(self, text: str) -> TextPosition:
        """Return the place behind a text that begins here."""
        lines = text.count("\n")
        column = len(text) - text.rfind("\n") if lines else self.column + len(text)
        return TextPosition(self.offset + len(text), self.line + lines, column)


@dataclass(frozen=True)
class PlacedFinding:
    """A finding in a stream: which rule, of which kind, where in the whole text, and how long."""

    rule_id: str
    kind: RuleKind
    place: TextPosition
    length: int

    @property
    def start(self) -> int:
        """Characters before it in the whole text."""
        return self.place.offset


class StreamFilter:
    """Give out of a text that comes in pieces what may be shown; the pieces' borders change nothing.

    What comes out is what `SafetyFilters.apply` makes of the whole text, but for a finding that begins in a line that
    was given out already: of that one the rest is masked. So that this is rare, text waits

    - for the end of its line;
    - for as many further words as the longest phrase of the policy has but one: no phrase is given out in part;
    - from the begin of a span that goes on over many lines (``until``) for its end: it becomes one marker. What could
      be such a begin waits for one further word.

    A line longer than ``most_held_characters`` is divided at white space, well before what is not known yet. Where
    there is none, and where a rule breaks down, the rest of the stream is blocked: one marker, and nothing after it.

    Parameters
    ----------
    filters : SafetyFilters
        Policy in force; bypassed filters let every piece pass at once.
    block_characters : int
        Judge at the first line end after so many characters, not at each: faster, for what nobody waits for.
    most_held_characters : int
        Longest stretch that is kept for want of a place to divide it.
    """

    def __init__(
        self,
        filters: SafetyFilters,
        *,
        block_characters: int = 0,
        most_held_characters: int = MOST_HELD_CHARACTERS,
    ) -> None:
        self._filters = filters
        self._block_characters = min(block_characters, most_held_characters)
        self._most_held = max(most_held_characters, 4 * _TAIL_CHARACTERS)
        self._actions: dict[str, Action] = {rule.id: rule.action for rule in filters.policy.rules}
        phrases = [fold(phrase).split() for rule in filters.policy.rules for phrase in rule.phrases]
        # A long span may be known by what stands right behind its begin: a key by the first line of its body.
        least = int(any(rule.until is not None for rule in filters.policy.rules))
        self._words_to_wait_for = max([least, *(len(words) - 1 for words in phrases)])
        # Of a line whose end has not come.
        self._line: list[str] = []
        self._line_characters = 0
        # Whole lines that were not judged.
        self._new: list[str] = []
        self._new_characters = 0
        # What was judged: given out up to `_shown`, kept from there.
        self._text, self._shown, self._begin = "", 0, TextPosition()
        # A long span loses its middle: where in `_text` that was, and the place of what follows.
        self._gap: tuple[int, TextPosition] | None = None
        # A position in `_text` and its place.
        self._known = (0, self._begin)
        self._findings: list[PlacedFinding] = []
        self._action: Action = "keep"
        self._blocked = self._closed = False

    @property
    def action(self) -> Action:
        """The severest action of what was found so far; whoever shows the stream ends it at ``block``."""
        return self._action

    @property
    def blocked(self) -> bool:
        """Whether the stream could not be judged, so that nothing more comes out of it."""
        return self._blocked

    def take_findings(self) -> list[PlacedFinding]:
        """Return what was found since this was last asked; kept no longer, so that memory does not grow."""
        found, self._findings = self._findings, []
        return found

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what may be shown now; often nothing."""
        if self._closed:
            raise ValueError("the stream was closed")
        if self._filters.bypassed:
            return piece
        return "".join(self._take(unit) for unit in self._units(piece))

    def close(self) -> str:
        """Return what may be shown of the rest; the stream takes nothing more."""
        if self._closed:
            return ""
        self._closed = True
        self._new.append("".join(self._line))
        if self._blocked or not (self._new[-1] or self._text[self._shown :] or self._new_characters):
            return ""
        return self._judge(is_end=True)

    def _units(self, piece: str) -> Iterator[str]:
        """Yield whole lines, and parts of one that grows too long: the same whatever the pieces are."""
        position = 0
        while position < len(piece):
            end = piece.find("\n", position) + 1 or len(piece)
            end = min(end, position + self._most_held - self._line_characters)
            self._line.append(piece[position:end])
            self._line_characters += end - position
            if piece[end - 1] == "\n" or self._line_characters == self._most_held:
                unit = "".join(self._line)
                self._line, self._line_characters = [], 0
                yield unit
            position = end

    def _take(self, unit: str) -> str:
        if self._blocked:
            return ""
        self._new.append(unit)
        self._new_characters += len(unit)
        # White space alone ends no wait for words, and would only be looked through again with all that waits.
        is_due = self._new_characters >= self._block_characters and not _is_blank(unit)
        if is_due or not unit.endswith("\n") or self._new_characters >= self._most_held:
            return self._judge(is_end=False)
        return ""

    def _judge(self, *, is_end: bool) -> str:
        text = self._text + "".join(self._new)
        self._text, self._new, self._new_characters = text, [], 0
        filtered = self._filters.apply(text)
        try:
            open_at = self._filters.open_span_start(text)
        except Exception:  # noqa: BLE001 - the boundary that fails closed: whatever broke, the text does not pass
            return self._block(FAILURE, "regex")
        covering = filtered.findings[:1]
        if filtered.action == "block" and covering and covering[0].length == len(text) and open_at != 0:
            # So the filters answer where a rule broke down.
            return self._block(covering[0].rule_id, covering[0].kind)
        if open_at is not None and not any(f.start <= open_at and _end(f) == len(text) for f in filtered.findings):
            # A begin that the policy permits begins nothing.
            open_at = None
        if is_end:
            return self._give_out(filtered, len(text))
        cut = self._cut_at_line_end(len(text) if open_at is None else open_at, filtered.findings)
        if open_at is not None and cut == self._shown and len(text) - cut > _MOST_OPEN_CHARACTERS:
            self._leave_out_middle(open_at)
        elif open_at is None and len(text) - cut > self._most_held - _TAIL_CHARACTERS:
            cut = max(cut, self._cut_at_white_space(filtered.findings))
        if len(self._text) - cut > 2 * self._most_held:
            return self._block(FAILURE, "regex")
        return self._give_out(filtered, cut) if cut > self._shown else ""

    def _cut_at_line_end(self, limit: int, findings: Sequence[Finding]) -> int:
        """Return the last line end before a place at which the text may be divided; where there is none, `_shown`."""
        cut = min(limit, self._last_words_start())
        while (cut := self._text.rfind("\n", self._shown, cut) + 1) > self._shown:
            crossing = _crossing(findings, cut, len(self._text))
            if crossing is None:
                return cut
            cut = max(crossing.start, self._shown)
        return self._shown

    def _last_words_start(self) -> int:
        """Return where so many words begin that no phrase from before them goes on behind the text; or `_shown`.

        Each word of a phrase lies in a word of the text of its own. One that began before the place and ended behind
        the text would have more words than the longest phrase has.
        """
        if not self._words_to_wait_for:
            return len(self._text)
        count, waiting = self._words_to_wait_for, self._text[self._shown :]
        while True:
            parts = waiting.rsplit(None, count)
            before = len(parts[0]) if len(parts) > count else 0
            # Some hold nothing that counts, such as a lone zero-width space.
            if len(fold(" ".join(parts[-count:])).split()) >= self._words_to_wait_for:
                return len(self._text) - len(waiting[before:].lstrip())
            if not before:
                return self._shown
            count *= 2

    def _cut_at_white_space(self, findings: Sequence[Finding]) -> int:
        cut = len(self._text) - _TAIL_CHARACTERS
        while cut > self._shown:
            crossing = _crossing(findings, cut, len(self._text)) if self._text[cut - 1].isspace() else None
            if crossing is None and self._text[cut - 1].isspace():
                return cut
            cut = cut - 1 if crossing is None else crossing.start
        return self._shown

    def _leave_out_middle(self, open_at: int) -> None:
        """Keep of a long span the lines that it is known by, and what its end may have begun in."""
        tail = len(self._text) - _TAIL_CHARACTERS
        begin_end = open_at
        while (begin_end := self._text.find("\n", begin_end, tail) + 1) > 0:
            if self._filters.open_span_start(self._text[:begin_end]) == open_at:
                self._gap = (begin_end, self._place(tail))
                self._text, self._known = self._text[:begin_end] + self._text[tail:], (0, self._begin)
                return

    def _give_out(self, filtered: Filtered, cut: int) -> str:
        """Return the text up to a place with its findings marked, and keep what later text is judged with."""
        shown = self._rendered(filtered, cut)
        context = self._text.rfind("\n", 0, max(0, cut - _CONTEXT_CHARACTERS)) + 1
        context = max(context, cut - _MOST_CONTEXT_CHARACTERS)
        self._begin = self._place(context)
        if self._gap is not None:
            self._gap = (self._gap[0] - context, self._gap[1]) if self._gap[0] > context else None
        self._text, self._shown, self._known = self._text[context:], cut - context, (0, self._begin)
        return shown

    def _rendered(self, filtered: Filtered, cut: int) -> str:
        parts: list[str] = []
        position = in_filtered = 0
        for finding in filtered.findings:
            if finding.start >= cut:
                break
            # Between findings both texts are the same; a marker ends at its bracket.
            begin = in_filtered + finding.start - position
            in_filtered = filtered.text.index("]", begin) + 1
            if _end(finding) > self._shown:
                parts.append(self._text[max(position, self._shown) : finding.start])
                parts.append(filtered.text[begin:in_filtered])
                self._note(finding.rule_id, finding.kind, max(finding.start, self._shown), _end(finding))
            position = _end(finding)
        parts.append(self._text[max(position, self._shown) : cut])
        return "".join(parts)

    def _block(self, rule_id: str, kind: RuleKind) -> str:
        self._note(rule_id, kind, self._shown, len(self._text))
        self._action, self._blocked = "block", True
        self._text, self._shown = "", 0
        return marker(rule_id)

    def _note(self, rule_id: str, kind: RuleKind, start: int, end: int) -> None:
        place = self._place(start)
        self._findings.append(PlacedFinding(rule_id, kind, place, self._place(end).offset - place.offset))
        self._action = max(self._action, self._actions.get(rule_id, "block"), key=SEVERITY.__getitem__)

    def _place(self, position: int) -> TextPosition:
        # From the last place asked for on: many findings must not count the lines before them anew each time.
        known, place = self._known if self._known[0] <= position else (0, self._begin)
        if self._gap is not None and known < self._gap[0] <= position:
            known, place = self._gap
        place = place.after(self._text[known:position])
        self._known = (position, place)
        return place


def _end(finding: Finding) -> int:
    return finding.start + finding.length


def _crossing(findings: Sequence[Finding], cut: int, length: int) -> Finding | None:
    """Return the finding that a cut would divide, or that began before it and may go on behind the text."""
    # They stand in order and do not overlap: it is the last that begins before the cut, or none.
    index = bisect_left(findings, cut, key=lambda finding: finding.start) - 1
    return findings[index] if index >= 0 and (_end(findings[index]) > cut or _end(findings[index]) == length) else None


def _is_blank(unit: str) -> bool:
    return unit.isspace() or not (unit.isascii() or fold(unit).strip())
