"""The account of every row and token, and the log of rejected records."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from codex_ml.data.problems import Problems, Reason
from codex_ml.errors import DataError

OVERLONG = "overlong"
SAFETY_DROP = "safety_drop"
NO_SUPERVISED_TOKENS = "no_supervised_tokens"
# Left out on purpose: a record of a file whose weight is below 1.
BY_WEIGHT = "weight"


@dataclass
class SplitAccount:
    """Counts of one split.

    ``records_read = records_kept + sum(dropped)`` and ``tokens_tokenised = tokens_supervised + tokens_masked +
    tokens_truncated + tokens_in_dropped``. A record that is dropped before it is tokenised has no tokens.
    """

    records_read: int = 0
    records_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    records_truncated: int = 0
    records_redacted: int = 0
    records_repeated: int = 0
    tokens_tokenised: int = 0
    tokens_supervised: int = 0
    tokens_masked: int = 0
    tokens_truncated: int = 0
    tokens_in_dropped: int = 0

    def keep(self, tokenised: int, supervised: int, masked: int) -> None:
        """Count a kept record: how many tokens it had at first, and how many of each kind it has now."""
        self.records_kept += 1
        self.tokens_tokenised += tokenised
        self.tokens_supervised += supervised
        self.tokens_masked += masked
        truncated = tokenised - supervised - masked
        self.tokens_truncated += truncated
        self.records_truncated += truncated > 0

    def repeat(self, times: int) -> None:
        """Count further copies of a kept record in an epoch; its tokens are counted once."""
        self.records_repeated += times

    def drop(self, reason: str, tokenised: int = 0) -> None:
        """Count a dropped record and the tokens it had."""
        self.dropped[reason] += 1
        self.tokens_tokenised += tokenised
        self.tokens_in_dropped += tokenised

    @property
    def records_refused(self) -> int:
        """Number of records dropped for a fault of theirs, not because of the weight of their file."""
        return self.records_dropped - self.dropped[BY_WEIGHT]

    @property
    def records_dropped(self) -> int:
        """Number of records dropped for any reason."""
        return sum(self.dropped.values())

    def check(self, name: str) -> None:
        """Raise `DataError` if records or tokens do not add up, or a count is below zero."""
        tokens = self.tokens_supervised + self.tokens_masked + self.tokens_truncated + self.tokens_in_dropped
        for what, whole, parts in (
            ("records read", self.records_read, self.records_kept + self.records_dropped),
            ("tokens", self.tokens_tokenised, tokens),
        ):
            if whole != parts:
                raise DataError(
                    f"the data account of {name} does not add up: {whole} {what}, but its parts sum to {parts}",
                    why="a record or token was lost or counted twice; nothing built on these counts can be trusted",
                    fix="this is a bug in codex-ml: please report it with the counts above",
                    code="DATA_ACCOUNT_MISMATCH",
                )
        if self.tokens_truncated < 0:
            raise DataError(
                f"the data account of {name} counts {self.tokens_truncated} truncated tokens",
                code="DATA_ACCOUNT_MISMATCH",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "records": {
                "read": self.records_read,
                "kept": self.records_kept,
                "dropped": dict(sorted(self.dropped.items())),
                "truncated": self.records_truncated,
                "redacted": self.records_redacted,
                "repeated": self.records_repeated,
            },
            "tokens": {
                "tokenised": self.tokens_tokenised,
                "supervised": self.tokens_supervised,
                "masked": self.tokens_masked,
                "truncated": self.tokens_truncated,
                "in_dropped_records": self.tokens_in_dropped,
            },
        }


@dataclass(frozen=True)
class FileAccount:
    """What of a file is no part of any record: lines without one, lines left out, and keys that the format has not.

    ``records_read = records_kept + sum(dropped)``. A line that cannot be read has no split, so it is counted here.
    """

    name: str
    empty_lines: int
    unused_columns: dict[str, int]
    records_read: int = 0
    records_kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def dropped_line(self) -> str:
        """Return one line that says how many lines were left out, and why."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dropped.items()))
        return (
            f"{self.name}: {sum(self.dropped.values())} of {self.records_read} lines are no records and were left out "
            f"({reasons}); positions are in {REJECTS_NAME}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "name": self.name,
            "empty_lines": self.empty_lines,
            "records": {
                "read": self.records_read,
                "kept": self.records_kept,
                "dropped": dict(sorted(self.dropped.items())),
            },
            "unused_columns": dict(sorted(self.unused_columns.items())),
        }


@dataclass
class DataAccount:
    """The accounts of all splits that were built, by name, and of the files behind them."""

    splits: dict[str, SplitAccount] = field(default_factory=dict)
    files: list[FileAccount] = field(default_factory=list)

    def total(self) -> SplitAccount:
        """Return the sum over all splits, with the lines of the files that belong to none."""
        total = SplitAccount()
        for account in self.splits.values():
            for name, value in vars(account).items():
                if isinstance(value, int):
                    setattr(total, name, getattr(total, name) + value)
            total.dropped.update(account.dropped)
        for file in self.files:
            total.records_read += sum(file.dropped.values())
            total.dropped.update(file.dropped)
        return total

    def check(self) -> None:
        """Raise `DataError` if any split, file, or the sum, does not add up."""
        for file in self.files:
            SplitAccount(file.records_read, file.records_kept, Counter(file.dropped)).check(file.name)
        for name, account in self.splits.items():
            account.check(name)
        self.total().check("all splits")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``data_account.json``."""
        return {
            "splits": {name: account.to_dict() for name, account in self.splits.items()},
            "total": self.total().to_dict(),
            "files": [file.to_dict() for file in self.files],
        }

    def lines(self) -> list[str]:
        """Return the account as a table, line by line, for the end of a run."""
        header = (
            "split",
            "read",
            "kept",
            "dropped",
            "redacted",
            "tokens",
            "supervised",
            "masked",
            "truncated",
            "in dropped",
        )
        rows: list[tuple[str, ...]] = [header]
        for name, account in [*self.splits.items(), ("total", self.total())]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(account.dropped.items()))
            counts = (
                account.records_read,
                account.records_kept,
                f"{account.records_dropped} ({reasons})" if reasons else 0,
                account.records_redacted,
                account.tokens_tokenised,
                account.tokens_supervised,
                account.tokens_masked,
                account.tokens_truncated,
                account.tokens_in_dropped,
            )
            rows.append((name, *(str(count) for count in counts)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        table = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        return [*table, *self.repeated_lines(), *self.dropped_lines()]

    def repeated_lines(self) -> list[str]:
        """Return one line for each split with records that occur several times in an epoch."""
        return [
            f"{name}: {account.records_kept + account.records_repeated} records an epoch, "
            f"{account.records_repeated} of them repetitions (data.weights)"
            for name, account in self.splits.items()
            if account.records_repeated
        ]

    def dropped_lines(self) -> list[str]:
        """Return one line for each file of which lines were left out because they are no records."""
        return [file.dropped_line() for file in self.files if file.dropped]


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
    """Stop if the share of rejected lines of a file is above the limit.

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
        code="DATA_TOO_MANY_BAD_LINES",
    )
