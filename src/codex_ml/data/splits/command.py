"""The job of `data split`: one pass over the records into complete output files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from codex_ml.data.problems import Problems
from codex_ml.data.readers.files import Background, state_of
from codex_ml.data.readers.jsonl import Lines
from codex_ml.data.readers.registry import open_records
from codex_ml.data.splits.check_helper import Batch, CheckHelper, checked_lines
from codex_ml.data.splits.groups import refuse_unknown_group
from codex_ml.data.splits.hash import HashCounts, shares_of, split_of, thresholds_by_rank, thresholds_by_value
from codex_ml.data.splits.line_checks import Checked, LineCheck
from codex_ml.data.splits.staging import SplitOutput, WaitingRecords, put_in_place, refuse_foreign, staging
from codex_ml.errors import DataError, DiskSpaceError, no_room
from codex_ml.io.atomic import Storage, json_bytes
from codex_ml.io.stopping import STOP

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class SplitOptions:
    """How a file is divided; see `codex_ml.config.schema.data.SplitSection` for what each means."""

    ratios: Sequence[float]
    names: Sequence[str]
    seed: int = 0
    group_by: str | None = None
    exact_sizes: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> list[Fraction]:
        """Return the shares.

        Raises
        ------
        DataError
            If there are fewer than two names, one is no name for a file, two are the same, or the ratios are wrong.
        """
        fix = "name each split once, with letters, digits, point, dash and underscore: --names train,valid,test"
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise DataError(
                    f"names: {name!r} cannot name a split", "a file is called so", fix, code="DATA_SPLIT_BAD_NAME"
                )
        names = ", ".join(self.names)
        if len({name.casefold() for name in self.names}) != len(self.names):
            raise DataError(f"names: a split is named twice: {names}", fix=fix, code="DATA_SPLIT_DUPLICATE_NAME")
        if len(self.names) < 2:
            raise DataError(
                "names: a division has two splits or more", f"given: {names}", fix, code="DATA_SPLIT_TOO_FEW_NAMES"
            )
        if self.group_by == "":
            raise DataError(
                "group_by: the name of a field is empty",
                fix="name a field, or leave --group-by out",
                code="DATA_SPLIT_EMPTY_GROUP_FIELD",
            )
        return shares_of(self.ratios, len(self.names))


@dataclass
class SplitPart:
    """One file of a split: its name, its share as asked for, and what was written into it."""

    name: str
    ratio: float
    records: int = 0
    byte_count: int = 0
    digest: str = ""


@dataclass(frozen=True)
class SplitReport:
    """What was divided, how, and into what."""

    directory: Path
    created: bool
    source: Mapping[str, Any]
    options: SplitOptions
    parts: Sequence[SplitPart]
    duplicate_records: int
    groups: int

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the splits."""
        return [self.directory / f"{part.name}.jsonl" for part in self.parts]

    def manifest(self) -> dict[str, Any]:
        """Return the content of ``split.json``: the same for the same source and options, on every machine."""
        return {
            "schema_version": 1,
            "source": dict(self.source),
            "split": {
                "seed": self.options.seed,
                "ratios": list(self.options.ratios),
                "names": list(self.options.names),
                "group_by": self.options.group_by,
                "columns": dict(self.options.columns),
                "exact_sizes": self.options.exact_sizes,
            },
            "duplicate_records": self.duplicate_records,
            "groups": self.groups,
            "splits": {
                part.name: {
                    "file": f"{part.name}.jsonl",
                    "records": part.records,
                    "share": round(part.records / self.source["records"], 6),
                    "bytes": part.byte_count,
                    "digest": part.digest,
                }
                for part in self.parts
            },
        }


MANIFEST_NAME = "split.json"

# Manifest, last line end, blocks of the filesystem.
_SPARE_BYTES = 1 << 20


def split_file(
    path: Path,
    out_dir: Path,
    options: SplitOptions,
    storage: Storage | None = None,
    open_lines: Callable[[Path], Lines] = open_records,
    helper_from_bytes: int = 16 << 20,
) -> SplitReport:
    """Divide a file of records into one file for each split, in a directory of their own with ``split.json``.

    The source is read once. Each record goes to one file with its bytes unchanged and in the order of the source; a
    last line without an end gets one. The directory appears whole or not at all; where it is already there with the
    very same files, nothing is done. Memory does not grow with the file (see `HashCounts`).

    Parameters
    ----------
    path, out_dir : Path
        The source, and the directory to be made.
    options : SplitOptions
        How to divide.
    storage : Storage, optional
        The disk.
    open_lines : callable
        The reader.
    helper_from_bytes : int
        From which size on a second process helps, where there is a second core (see `CheckHelper`).

    Raises
    ------
    DataError
        If the source has a faulty line or changes while it is read, the options are wrong, a split with a share above
        0 would be empty, or ``out_dir`` holds something else.
    DiskSpaceError
        If the disk is too small.
    """
    storage = storage or Storage()
    shares = options.check()
    out_dir = out_dir.resolve()
    files = [f"{name}.jsonl" for name in options.names]
    refuse_foreign(out_dir, [*files, MANIFEST_NAME])
    problems = Problems()
    lines = open_lines(path)
    before = state_of(path)
    try:
        with staging(out_dir, storage) as root:
            _require_disk(root, before, options, storage)
            made = root / "made"
            storage.make_directory(made)
            helps = before is not None and before[0] >= helper_from_bytes and _core_count() > 1
            helper = CheckHelper(root, options.seed, options.group_by, options.columns) if helps else None
            with helper or nullcontext(), _Division(root, made, options, shares) as division:
                division.take(lines, path.name, problems, helper)
                problems.raise_if_any()
                if state_of(path) != before:
                    raise DataError(
                        f"{path.name} changed while it was split",
                        fix="split it when nothing writes to it",
                        code="DATA_FILE_CHANGED",
                    )
                division.finish(path.name)
            report = division.report(path.name, lines, out_dir)
            storage.write_bytes(made / MANIFEST_NAME, json_bytes(report.manifest()))
            created = put_in_place(made, out_dir, storage)
    except OSError as error:
        limit = no_room(error)
        if limit is None:
            raise
        raise DiskSpaceError(
            f"{out_dir.parent}: {limit.problem}",
            why="nothing of the split was kept",
            fix=f"{limit.fix}, or name another disk",
            code="DISK_LIMIT",
        ) from error
    return replace(report, created=created)


class _Division:
    """The split of one file: records enter by `take` and are complete in their files after `finish`."""

    def __init__(self, root: Path, made: Path, options: SplitOptions, shares: Sequence[Fraction]) -> None:
        self._options = options
        self._shares = shares
        self._parts = [SplitPart(name, ratio) for name, ratio in zip(options.names, options.ratios, strict=True)]
        self._background = Background()
        self._outputs = [SplitOutput(made / f"{name}.jsonl", self._background) for name in options.names]
        # Which split a rank falls into is known at the end only: until then all records are in one file.
        self._thresholds = None if options.exact_sizes else thresholds_by_value(shares)
        self._waiting = WaitingRecords(root / "waiting")
        self._groups = HashCounts(root / "groups")
        self._records = self._groups if options.group_by is None else HashCounts(root / "records")

    def __enter__(self) -> _Division:
        with ExitStack() as stack:
            for output in self._outputs:
                stack.enter_context(output)
            if self._thresholds is None:
                stack.enter_context(self._waiting)
            # Left first: its thread writes into these files.
            stack.enter_context(self._background)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def take(self, lines: Lines, name: str, problems: Problems, helper: CheckHelper | None) -> None:
        """Read every record and write it where it belongs, as far as that is known."""
        options, is_sound = self._options, True
        check = LineCheck(options.seed, options.group_by, options.columns)
        for batch, checked in checked_lines(lines, check, helper):
            STOP.check()
            faults = batch.all_faults(checked)
            if not self._groups.total and is_sound:
                refuse_unknown_group(name, [text for _, text in faults], len(batch.numbers), options.group_by)
            for number, text in faults:
                problems.add(f"{name}:{number}", text)
                is_sound = False
            if is_sound:
                self._groups.add(checked.groups)
                if self._records is not self._groups:
                    self._records.add(checked.records)
                self._write(batch, checked)

    def _write(self, batch: Batch, checked: Checked) -> None:
        thresholds, outputs, waiting = self._thresholds, self._outputs, self._waiting
        for hash_value, raw, line_end in zip(checked.groups, batch.lines, batch.line_ends, strict=True):
            record = raw + (line_end or b"\n")
            if thresholds is None:
                waiting.write(hash_value, record)
            else:
                outputs[split_of(hash_value, thresholds)].write(record)

    def finish(self, name: str) -> None:
        """Write what still waits, and refuse a split without a record."""
        if self._thresholds is None:
            thresholds = thresholds_by_rank(self._shares, self._groups.total, self._groups.at_rank)
            for hash_value, record in self._waiting:
                self._outputs[split_of(hash_value, thresholds)].write(record)
        for part, output in zip(self._parts, self._outputs, strict=True):
            output.close()
            part.records, part.byte_count, part.digest = output.records, output.byte_count, output.digest
            if part.ratio > 0 and not part.records:
                raise _empty_split(name, part, self._groups.total, self._options.exact_sizes)

    def report(self, name: str, lines: Lines, out_dir: Path) -> SplitReport:
        """Return what was done."""
        source = {
            "name": name,
            "digest": lines.digest,
            "bytes": lines.byte_count,
            "records": self._groups.total,
            "empty_lines": lines.empty_lines,
        }
        duplicates = self._records.total - self._records.distinct()
        return SplitReport(out_dir, True, source, self._options, self._parts, duplicates, self._groups.distinct())


def _core_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_disk(directory: Path, state: tuple[int, int, int] | None, options: SplitOptions, storage: Storage) -> None:
    size = 0 if state is None else state[0]
    needed = size * (2 if options.exact_sizes else 1) + _SPARE_BYTES
    free = storage.free_bytes(directory)
    if free < needed:
        raise DiskSpaceError(
            f"{directory.parent}: the disk is too small for the split",
            why=f"needed are {needed} bytes"
            + (" (exact sizes need the file twice for a while)" if options.exact_sizes else "")
            + f", free are {free}",
            fix="free space, or name a directory on another disk",
            code="DISK_FULL",
        )


def _empty_split(name: str, part: SplitPart, records: int, exact_sizes: bool) -> DataError:
    return DataError(
        f"{name}: no record falls into the split {part.name!r} (share {part.ratio:g} of {records})",
        why="the file has too few records, or too few groups, for this share",
        fix="add records, set the share to 0"
        + ("" if exact_sizes else ", ask for exact sizes (--exact-sizes, data.split.exact_sizes=true)")
        + ", or take another seed",
        code="DATA_SPLIT_EMPTY",
    )
