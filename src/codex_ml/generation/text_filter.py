"""What generation and evaluation ask of a safety filter, so that the safety room can be passed in as a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class FilteredText(Protocol):
    """The answer of a filter about one text."""

    @property
    def text(self) -> str:
        """The text as it may be used; only meaningful for the actions ``keep`` and ``redact``."""
        ...

    @property
    def findings(self) -> Sequence[Any]:
        """What was found: rule ids and offsets, never content."""
        ...

    @property
    def action(self) -> str:
        """``keep``, ``redact``, ``drop`` or ``block``."""
        ...


TextFilter = Callable[[str], FilteredText]


class OutputStream(Protocol):
    """A filter for a text that comes in pieces."""

    @property
    def action(self) -> str:
        """The severest action so far; what is neither ``keep`` nor ``redact`` ends the text."""
        ...

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what may be shown now."""
        ...

    def close(self) -> str:
        """Return what may be shown of the rest."""
        ...

    def take_findings(self) -> Sequence[Any]:
        """Return what was found since this was last asked."""
        ...


def allowed_text(filtered: FilteredText) -> str | None:
    """Return the text that may be used, or None when the policy lets none of it through.

    Fails closed: an action this code does not know lets nothing through.
    """
    return filtered.text if filtered.action in ("keep", "redact") else None
