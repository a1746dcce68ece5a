"""Records that a caller passes in memory, as temporary files that are named by the digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codex_ml.config.paths import MEMORY_DIRECTORY
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage

Records = Iterable[Mapping[str, Any]]


@contextmanager
def records_on_disk(splits: Mapping[str, Records], output_dir: Path) -> Iterator[dict[str, Path]]:
    """Write the records of each split to a private file for the length of a ``with`` block.

    The name is the SHA-256 of the content, so that equal records have an equal path in config and fingerprint.

    Raises
    ------
    DataError
        If a record is not a mapping of JSON values.
    """
    storage = Storage()
    files: dict[str, Path] = {}
    try:
        for name, records in splits.items():
            content = b"".join(_line(name, number, record) for number, record in enumerate(records, start=1))
            path = output_dir / MEMORY_DIRECTORY / f"{hashlib.sha256(content).hexdigest()}-{name}.jsonl"
            storage.make_directory(path.parent)
            files[name] = path
            storage.write_atomic(path, content)
        yield files
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def _line(name: str, number: int, record: Mapping[str, Any]) -> bytes:
    if not isinstance(record, Mapping):
        raise DataError(
            f"{name} record {number}: wrong type (got {type(record).__name__}, expected a mapping)",
            fix='pass records such as {"prompt": "…", "completion": "…"}',
            code="DATA_RECORD_TYPE",
        )
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} record {number}: a value cannot be written as JSON ({type(error).__name__})",
            fix="use strings, numbers, booleans, lists, dicts and None, in valid Unicode",
            code="DATA_RECORD_TYPE",
        ) from error
