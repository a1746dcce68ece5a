"""The lines of a data file that were left out, with reason and position: what `rejects.ndjson` is made of."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import get_args

from codex_ml.data.problems import Problems, Reason
from codex_ml.errors import DataError

REJECTS_NAME = "rejects.ndjson"
_REASONS: tuple[Reason, ...] = get_args(Reason)
_CODES = {reason: code for code, reason in enumerate(_REASONS)}


class Rejects:
    """The rejected lines of one file, in its order; 17 bytes each, so that a bad file does not fill the memory.

    Parameters
    ----------
    file_name : str
        Name of the file.
    """

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._lines = array("Q")
        self._offsets = array("Q")
        self._reasons = array("B")

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line_number: int, offset: int, reason: Reason) -> None:
        """Note one line."""
        self._lines.append(line_number)
        self._offsets.append(offset)
        self._reasons.append(_CODES[reason])

    def counts(self) -> dict[str, int]:
        """Return how many lines were rejected for each reason."""
        return {_REASONS[code]: count for code, count in sorted(Counter(self._reasons).items())}

    def __iter__(self) -> Iterator[tuple[int, int, Reason]]:
        """Yield line, offset and reason of each."""
        for line, offset, code in zip(self._lines, self._offsets, self._reasons, strict=True):
            yield line, offset, _REASONS[code]

    def ndjson(self) -> bytes:
        """Return one JSON object a line: file, line, offset, reason; nothing of what the line holds."""
        return b"".join(
            json.dumps(
                {"file": self.file_name, "line": line, "offset": offset, "reason": reason}, ensure_ascii=False
            ).encode("utf-8", errors="backslashreplace")
            + b"\n"
            for line, offset, reason in self
        )


def rejects_ndjson(files: Iterable[Rejects]) -> bytes:
    """Return the content of ``rejects.ndjson`` for some files."""
    return b"".join(file.ndjson() for file in files)


def refuse_too_many(rejects: Rejects, problems: Problems, read: int, max_bad_share: float) -> None:
    """Stop where so many lines of a file are no records that the file itself is in doubt.

    Parameters
    ----------
    rejects : Rejects
        The lines.
    problems : Problems
        What is wrong with them, for the message.
    read : int
        How many lines the file has.
    max_bad_share : float
        The largest share that may be left out.

    Raises
    ------
    DataError
        If the share is larger, or nothing is left.
    """
    bad = len(rejects)
    if not bad or (bad < read and bad / read <= max_bad_share):
        return
    raise DataError(
        f"{rejects.file_name}: {bad:,} of {read:,} lines are no records ({bad / read:.1%})",
        why=f"data.max_bad_share allows {max_bad_share:.1%}, and at least one must be left; they are:"
        f"{problems.listing()}",
        fix="correct the file, or raise data.max_bad_share knowingly",
    )
