"""Type of the cases: a malformed or awkward file and its expected result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROW = b'{"prompt": "a", "completion": "b"}'
END = b"\n"


@dataclass(frozen=True)
class Case:
    """One file and its expected result."""

    name: str
    content: bytes
    good: int = 0
    bad: Mapping[int, str] = field(default_factory=dict)
    empty: int = 0
    refused: str = ""
