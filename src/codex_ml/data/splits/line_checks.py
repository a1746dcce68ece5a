"""Lines checked as strictly as anywhere, and hashed for a split, many at a time: a pure function of their bytes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.json import parse_line
from codex_ml.data.splits.groups import group_key, record_key
from codex_ml.data.splits.hash import SplitHasher


class Checked(NamedTuple):
    """What came of some lines.

    ``groups`` holds what decides the split of each, ``records`` the hash of each by itself (empty where that is the
    same), ``faults`` the index of each line that is refused with the reason. Where there are faults, the rest is idle.
    """

    groups: array[int]
    records: array[int]
    faults: list[tuple[int, LineFault]]


class LineCheck:
    """Checks and hashes lines.

    Parameters
    ----------
    seed : int
        Of the hash.
    group_by : str or None
        See `group_key`; None: each record by itself.
    columns : mapping
        See `group_key`.
    """

    def __init__(self, seed: int, group_by: str | None, columns: Mapping[str, str]) -> None:
        self._hasher = SplitHasher(seed)
        self._group_by = group_by
        self._columns = columns

    def __call__(self, lines: Sequence[bytes]) -> Checked:
        """Check some lines, none of them empty."""
        hasher, group_by, columns = self._hasher, self._group_by, self._columns
        checked = Checked(array("Q"), array("Q"), [])
        groups, records, faults = checked
        for index, raw in enumerate(lines):
            try:
                value = parse_line(raw)
                if group_by is None:
                    groups.append(hasher(record_key(raw)))
                else:
                    groups.append(hasher(group_key(value, group_by, columns)))
                    records.append(hasher(record_key(raw)))
            except LineFault as fault:
                faults.append((index, fault))
            except ValueError as error:
                faults.append((index, LineFault("no_group", str(error))))
        return checked
