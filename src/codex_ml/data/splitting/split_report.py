"""How a file is divided, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from codex_ml.data.splitting.split_hash import shares_of
from codex_ml.errors import DataError

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
                raise DataError(f"names: {name!r} cannot name a split", why="a file is called so", fix=fix)
        if len({name.casefold() for name in self.names}) != len(self.names):
            raise DataError(f"names: a split is named twice: {', '.join(self.names)}", fix=fix)
        if len(self.names) < 2:
            raise DataError("names: a division has two splits or more", why=f"given: {', '.join(self.names)}", fix=fix)
        if self.group_by == "":
            raise DataError("group_by: the name of a field is empty", fix="name a field, or leave --group-by out")
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
