"""Faults found while reading data: all are counted, the first are kept, and they are raised as one error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Literal

from codex_ml.errors import DataError

MAX_SHOWN = 20

# Why a line is no record: the words that accounts and `rejects.ndjson` use.
Reason = Literal[
    "bad_encoding",
    "bad_json",
    "doubled_key",
    "bad_number",
    "lone_surrogate",
    "too_deep",
    "not_an_object",
    "too_long_line",
    "bad_row",
    "no_group",
    "bad_shape",
]

# Names of columns are shown, values never are; nor is what hardly is the name of a column.
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z_ .-]{0,39}[0-9]{0,3}")


class LineFault(ValueError):  # noqa: N818 - a value that is passed on as often as raised
    """Why one line is no record, in one of the known words and in a sentence that holds no content.

    Parameters
    ----------
    reason : Reason
        The word.
    text : str
        The sentence.
    position : int, optional
        Where in the line it is, in bytes, for faults that an editor does not show.
    """

    def __init__(self, reason: Reason, text: str, position: int | None = None) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.text = text
        self.position = position

    def __eq__(self, other: object) -> bool:
        """Tell whether another fault says the same."""
        return isinstance(other, LineFault) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Return a hash that equal faults share."""
        return hash((self.reason, self.text, self.position))

    def at(self, offset: int) -> str:
        """Return the sentence for a line that begins at an offset of its file."""
        return self.text if self.position is None else f"{self.text}, offset {offset + self.position} of the file"


class Problems:
    """Faults with their place ``file:line``: all counted, the first kept; messages hold no content of records."""

    def __init__(self) -> None:
        self.count = 0
        self._code = ""
        self._first: list[tuple[str, str, str]] = []

    def add(self, place: str, what: str, fix: str = "", *, code: str = "DATA_BAD_RECORD") -> None:
        """Note one fault; the code of the first one becomes that of the error."""
        self.count += 1
        self._code = self._code or code
        if len(self._first) < MAX_SHOWN:
            self._first.append((place, what, fix))

    def add_error(self, error: DataError) -> None:
        """Note that a whole file was refused."""
        place, _, what = error.what.partition(": ")
        self.add(place, " - ".join(part for part in (what, error.why) if part), error.fix, code=error.code)

    def raise_if_any(self) -> None:
        """Raise one `DataError` that names the first faults and the number of all; do nothing when there is none."""
        if not self._first:
            return
        place, what, _ = self._first[0]
        # One for each kind of fault, that of the first one first.
        fixes = dict.fromkeys(fix for _, _, fix in self._first if fix)
        raise DataError(f"{place}: {what}", why=self._others(), fix="\n       ".join(fixes) or _FIX, code=self._code)

    def listing(self) -> str:
        """Return the faults that were kept, one a line."""
        return "".join(f"\n       {place}: {what}" for place, what, _ in self._first) + self._more()

    def _others(self) -> str:
        if self.count == 1:
            return ""
        listed = ""
        # What is said again and again is said once, with all places.
        for what, group in groupby(self._first[1:], key=lambda fault: fault[1]):
            places = ", ".join(place for place, _, _ in group)
            listed += f"\n       {places}: {'the same' if what == self._first[0][1] else what}"
        return f"the first of {self.count:,} problems; the others:{listed}{self._more()}"

    def _more(self) -> str:
        more = self.count - len(self._first)
        return f"\n       and {more:,} more" if more else ""


_FIX = "correct these lines; nothing was written"


def looks_like_name(key: str) -> bool:
    """Tell whether a key looks like the name of a column rather than like content."""
    return _COLUMN_NAME.fullmatch(key) is not None


def shown_name(name: str) -> str:
    """Return a column's name for a message, or a placeholder if it looks like content rather than a name."""
    return repr(name) if looks_like_name(name) else "(a key that is not shown)"


def repeated_name(names: Iterable[str]) -> str | None:
    """Return the first name, in sorted order, that occurs more than once; None if there is none."""
    return min((name for name, count in Counter(names).items() if count > 1), default=None)
