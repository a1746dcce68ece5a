"""Stop strings in a text that grows: where it ends, and how much of it may already be shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Looks for the first of some texts in one that comes in pieces, also across their borders.

    Parameters
    ----------
    texts : sequence of str
        None of them empty.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._longest = max(map(len, self._texts), default=0)
        self._seen = ""
        self._shown = 0
        self.found_at: int | None = None

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what can no longer belong to a stop string; nothing once one was found."""
        if self.found_at is not None:
            return ""
        # What a stop string may have begun in was not shown: it cannot begin before.
        searched_from = max(self._shown, len(self._seen) - self._longest + 1) if self._longest else self._shown
        self._seen += piece
        places = [place for text in self._texts if (place := self._seen.find(text, max(0, searched_from))) >= 0]
        if places:
            self.found_at = min(places)
            return self._show(self.found_at)
        return self._show(len(self._seen) - self._held())

    def close(self) -> str:
        """Return what was kept back: nothing more comes that could make a stop string of it."""
        return "" if self.found_at is not None else self._show(len(self._seen))

    def _held(self) -> int:
        """Return the length of the longest end of the text that a stop string could begin with."""
        for length in range(min(self._longest - 1, len(self._seen) - self._shown), 0, -1):
            if any(text.startswith(self._seen[-length:]) for text in self._texts):
                return length
        return 0

    def _show(self, end: int) -> str:
        shown = self._seen[self._shown : end]
        self._shown = max(self._shown, end)
        return shown
