"""Faults found while reading data: gathered up to a bound, then raised as one error."""

from __future__ import annotations

import re

from codex_ml.errors import DataError

MAX_PROBLEMS = 20

# Names of columns are shown, values never are; nor is what hardly is the name of a column.
_COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z_ .-]{0,39}[0-9]{0,3}")


class Problems:
    """A bounded list of faults, each with its place ``file:line``; messages hold no content of records."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, place: str, what: str, fix: str = "") -> None:
        """Note one fault."""
        self._found.append((f"{place}: {what}", fix))

    @property
    def full(self) -> bool:
        """Whether so many were found that looking further helps nobody."""
        return len(self._found) >= MAX_PROBLEMS

    def raise_if_any(self) -> None:
        """Raise one `DataError` that names every fault; do nothing when there is none."""
        if not self._found:
            return
        (first, fix), rest = self._found[0], self._found[1:]
        fix = fix or next((other for _, other in rest if other), "correct these lines; nothing was written")
        if not rest:
            raise DataError(first, fix=fix)
        count = f"{len(self._found)} problems" + (", reading stopped there" if self.full else "")
        others = "".join(f"\n       {what}" for what, _ in rest)
        raise DataError(first, why=f"the first of {count}; the others:{others}", fix=fix)


def shown_name(name: str) -> str:
    """Return a column's name for a message, or a stand-in where it looks like content rather than a name."""
    return repr(name) if _COLUMN_NAME.fullmatch(name) else "(a key that is not shown)"
