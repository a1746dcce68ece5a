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
        # No stop string begins before.
        self._from = 0
        self.found_at: int | None = None

    @property
    def length(self) -> int:
        """Characters seen, those behind a stop string too."""
        return len(self._seen)

    @property
    def beyond(self) -> str:
        """The stop string that was found and what followed it so far; empty where none was."""
        return "" if self.found_at is None else self._seen[self.found_at :]

    @property
    def found_length(self) -> int:
        """Length of the stop string that was found; of the longest where several begin there."""
        return max((len(text) for text in self._texts if self.beyond.startswith(text)), default=0)

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what can no longer belong to a stop string; nothing once one was found."""
        self._seen += piece
        if self.found_at is not None:
            return ""
        places = [place for text in self._texts if (place := self._seen.find(text, self._from)) >= 0]
        if places:
            self.found_at = min(places)
            return self._show(self.found_at)
        self._from = max(self._from, len(self._seen) - self._longest + 1)
        return self._show(len(self._seen) - self._held())

    def pass_over(self, end: int, limit: int | None = None) -> str:
        """Take a stop string for part of the text, look for the next from a place on, and return what may be shown.

        Parameters
        ----------
        end : int
            Where the next stop string may begin.
        limit : int, optional
            Where the text ends; no further stop string is looked for then.
        """
        self.found_at = None
        if limit is not None:
            return self._show(limit)
        self._from = end
        return self.feed("")

    def close(self) -> str:
        """Return what was kept back: nothing more comes that could make a stop string of it."""
        return "" if self.found_at is not None else self._show(len(self._seen))

    def _held(self) -> int:
        """Return the length of the longest end of the text that a stop string could begin with."""
        for length in range(min(self._longest - 1, len(self._seen) - max(self._shown, self._from)), 0, -1):
            if any(text.startswith(self._seen[-length:]) for text in self._texts):
                return length
        return 0

    def _show(self, end: int) -> str:
        shown = self._seen[self._shown : end]
        self._shown = max(self._shown, end)
        return shown
