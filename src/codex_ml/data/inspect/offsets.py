"""The manifest of a file: digest, size, schema, and where each record begins, so that one is read by `seek`."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codex_ml.data.problems import shown_name
from codex_ml.data.readers.json import parse_line
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, JsonlFile
from codex_ml.data.records.formats import detect_format
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage, bytes_digest, file_digest
from codex_ml.io.untrusted import UntrustedFileError, open_regular, read_bytes, read_json

_SUFFIX = ".manifest.json"
_MOST_FIELDS = 50
# Endings under which `open_records` reads something else than lines.
_WITHOUT_PLACES = frozenset({".gz", ".zst", ".csv", ".tsv", ".parquet", ".arrow"})
_DIGEST = r"^sha256:[0-9a-f]{64}$"
_PLAIN_NAME = r"^[^/\x00]+\.offsets$"
_OFFSET = np.dtype("<u8")
_UNKNOWN_SHAPE = "none"
_TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}


class FileManifest(BaseModel):
    """What identifies a file and tells how it is built; no content of a record is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    file: str
    digest: str = Field(pattern=_DIGEST)
    bytes: int = Field(ge=0)
    modified_ns: int
    records: int = Field(ge=1)
    empty_lines: int = Field(ge=0)
    shapes: dict[str, int]
    fields: dict[str, dict[str, int]]
    # A plain name: the manifest may be untrusted and must not lead elsewhere.
    offsets: str = Field(pattern=_PLAIN_NAME)
    offsets_digest: str = Field(pattern=_DIGEST)


@dataclass(frozen=True)
class LoadedManifest:
    """A manifest that was read, where it lies, and where the offsets that belong to it lie."""

    path: Path
    content: FileManifest

    @property
    def offsets_path(self) -> Path:
        """The file of offsets: 8 bytes a record, unsigned, the lowest byte first."""
        return self.path.with_name(self.content.offsets)


class IndexedRecord(NamedTuple):
    """One record that was read by its offset: its bytes without the line end, and its value."""

    offset: int
    raw: bytes
    value: dict[str, Any]


def manifest_path(path: Path) -> Path:
    """Return where the manifest of a file lies unless another place is named: beside it."""
    return path.with_name(path.name + _SUFFIX)


def make_manifest(
    path: Path, target: Path, storage: Storage, max_line_bytes: int = MAX_LINE_BYTES
) -> tuple[LoadedManifest, bool]:
    """Read a file with every check of the reader and write its manifest, unless there is one that still holds.

    Parameters
    ----------
    path : Path
        A JSON Lines file; one that is packed has no place to seek to.
    target : Path
        Where to write the manifest. The offsets are written beside it, under its name with the ending ``.offsets``.
    storage : Storage
        Writes both, each whole or not at all.
    max_line_bytes : int
        Longest line that is read.

    Returns
    -------
    LoadedManifest, bool
        The manifest, and whether it was written now.

    Raises
    ------
    DataError
        If the file cannot be read, lines are faulty, the file changes meanwhile, or something else is in the way.
    """
    if path.suffix.lower() in _WITHOUT_PLACES:
        raise DataError(
            f"{path.name} has no manifest: its records have no place of their own in it",
            why="a manifest says at which byte a record begins, and there is none in a packed file or a table",
            fix="unpack it, or write its records as JSON Lines: codex-ml data prepare",
            code="DATA_MANIFEST_MISSING",
        )
    if not target.parent.is_dir():
        raise DataError(
            f"{target.parent} is no directory",
            why="the manifest is to lie there",
            fix="make it first",
            code="OUTPUT_DIRECTORY_MISSING",
        )
    if target.exists():
        earlier = load_manifest(target)
        if _is_current(path, earlier):
            return earlier, False
    offsets_path = target.with_name(target.name.removesuffix(".json").removesuffix(".manifest") + ".offsets")
    if offsets_path.exists() and not target.exists():
        raise DataError(
            f"{offsets_path} is there already, and no manifest that it belongs to",
            why="the offsets would be written over it",
            fix="move it away, or name another place with --output",
            code="OUTPUT_EXISTS",
        )
    content, offsets = _scan(path, offsets_path.name, max_line_bytes)
    # The manifest first: offsets without one would be taken for a foreign file.
    storage.write_json(target, content.model_dump(mode="json"))
    storage.write_atomic(offsets_path, offsets)
    return LoadedManifest(target, content), True


def load_manifest(target: Path) -> LoadedManifest:
    """Read a manifest; neither the file that it describes nor its offsets are looked at.

    Raises
    ------
    DataError
        If it is absent or no manifest.
    """
    try:
        return LoadedManifest(target, FileManifest.model_validate(read_json(target)))
    except FileNotFoundError as error:
        raise DataError(
            f"{target} does not exist",
            why="a manifest is made once for a file",
            fix="codex-ml data manifest FILE",
            code="DATA_MANIFEST_MISSING",
        ) from error
    except (UntrustedFileError, ValidationError, OSError) as error:
        why = f"{error.error_count()} of its values are wrong" if isinstance(error, ValidationError) else str(error)
        raise DataError(
            f"{target} is no manifest of a file",
            why=why,
            fix="name another place with --output, or move it away and make the manifest again",
            code="DATA_MANIFEST_INVALID",
        ) from error


def check_manifest(path: Path, manifest: LoadedManifest) -> None:
    """Read a file and its offsets whole and compare their digests with the manifest.

    Raises
    ------
    DataError
        If either is absent or another than when the manifest was made.
    """
    _refuse_other_size(path, manifest)
    if _digest_of(path) != manifest.content.digest:
        raise _changed(path, manifest, "its bytes are others, though as many")
    _offsets(manifest)


def read_record(path: Path, manifest: LoadedManifest, index: int) -> IndexedRecord:
    """Return one record of a file without reading the records before it.

    The file is taken for unchanged where its size and time are those of the manifest; where only the time differs (a
    copy), its digest decides.

    Parameters
    ----------
    path : Path
        The file.
    manifest : LoadedManifest
        Its manifest.
    index : int
        Which record, 0-based.

    Raises
    ------
    DataError
        If there is no such record, or file or offsets are not those of the manifest.
    """
    count = manifest.content.records
    if not 0 <= index < count:
        raise DataError(
            f"{path.name} has {count:,} records, and number {index + 1:,} is asked for",
            fix="name another",
            code="DATA_RECORD_NUMBER_OUT_OF_RANGE",
        )
    _refuse_other_size(path, manifest)
    if path.stat().st_mtime_ns != manifest.content.modified_ns and _digest_of(path) != manifest.content.digest:
        raise _changed(path, manifest, "its bytes are others, though as many")
    offset = int(np.frombuffer(_offsets(manifest), dtype=_OFFSET)[index])
    with open_regular(path) as handle:
        handle.seek(offset)
        # A line was not longer than was allowed when the manifest was made, and the file is the same.
        line = handle.readline()
    raw = line.removesuffix(b"\n").removesuffix(b"\r")
    try:
        return IndexedRecord(offset, raw, parse_line(raw))
    except ValueError as error:
        raise _changed(path, manifest, f"no record begins at byte {offset} ({error})") from error


def _scan(path: Path, offsets_name: str, max_line_bytes: int) -> tuple[FileManifest, bytes]:
    file = JsonlFile(path, max_line_bytes=max_line_bytes)
    offsets = array("Q")
    shapes: Counter[str] = Counter()
    fields: dict[str, Counter[str]] = {}
    before = path.stat() if path.exists() else None
    for line in file:
        offsets.append(line.offset)
        shapes[_shape_of(line.value)] += 1
        _note_fields(fields, line.value)
    after = path.stat()
    if before is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"{path.name} changed while it was read",
            fix="make the manifest when nothing writes to it",
            code="DATA_FILE_CHANGED",
        )
    packed = np.array(offsets, dtype=_OFFSET).tobytes()
    content = FileManifest(
        file=path.name,
        digest=file.digest,
        bytes=file.byte_count,
        modified_ns=after.st_mtime_ns,
        records=len(offsets),
        empty_lines=file.empty_lines,
        shapes=dict(sorted(shapes.items())),
        fields={name: dict(sorted(types.items())) for name, types in fields.items()},
        offsets=offsets_name,
        offsets_digest=bytes_digest(packed),
    )
    return content, packed


def _shape_of(value: Mapping[str, Any]) -> str:
    try:
        return detect_format(value)
    except ValueError:
        return _UNKNOWN_SHAPE


def _note_fields(fields: dict[str, Counter[str]], value: Mapping[str, Any]) -> None:
    for key, item in value.items():
        # What hardly is a name may be content, and the manifest must not grow with the data.
        name = shown_name(key).strip("'")
        if name not in fields and len(fields) >= _MOST_FIELDS:
            name = "(further keys)"
        fields.setdefault(name, Counter())[_TYPE_NAMES.get(type(item), "null")] += 1


def _is_current(path: Path, manifest: LoadedManifest) -> bool:
    """Tell whether size and time of a file are those of its manifest, and the offsets are there."""
    if not path.is_file():
        return False
    status = path.stat()
    content = manifest.content
    if (content.file, content.bytes, content.modified_ns) != (path.name, status.st_size, status.st_mtime_ns):
        return False
    try:
        _offsets(manifest)
    except DataError:
        return False
    return True


def _refuse_other_size(path: Path, manifest: LoadedManifest) -> None:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist",
            why=f"{manifest.path.name} describes it",
            fix="correct the path",
            code="FILE_NOT_FOUND",
        )
    if (size := path.stat().st_size) != manifest.content.bytes:
        raise _changed(path, manifest, f"it has {size:,} bytes, and had {manifest.content.bytes:,}")


def _offsets(manifest: LoadedManifest) -> bytes:
    """Return the offsets, checked: a wrong one would return another record silently."""
    path = manifest.offsets_path
    try:
        if not path.is_file():
            raise DataError(
                f"{path} does not exist",
                why=f"{manifest.path.name} needs it",
                fix=_AGAIN,
                code="DATA_MANIFEST_OFFSETS_MISSING",
            )
        expected_bytes, found_bytes = manifest.content.records * _OFFSET.itemsize, path.stat().st_size
        if found_bytes != expected_bytes:
            # Judged before it is read: a sparse file can be larger than the memory.
            raise DataError(
                f"{path} has {found_bytes:,} bytes instead of {expected_bytes:,}",
                fix=_AGAIN,
                code="DATA_MANIFEST_DAMAGED",
            )
        content = read_bytes(path, expected_bytes)
    except (OSError, UntrustedFileError) as error:
        # A name may be too long for a file system.
        why = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"{path} cannot be read", why=why or str(error), fix=_AGAIN, code="FILE_UNREADABLE") from error
    if bytes_digest(content) != manifest.content.offsets_digest:
        raise DataError(f"{path} is damaged, or belongs to another manifest", fix=_AGAIN, code="DATA_MANIFEST_DAMAGED")
    return content


def _digest_of(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read", why=error.strerror or str(error), code="FILE_UNREADABLE") from error


def _changed(path: Path, manifest: LoadedManifest, why: str) -> DataError:
    return DataError(
        f"{path} is not the file that {manifest.path.name} was made of",
        why=why,
        fix=_AGAIN,
        code="DATA_MANIFEST_MISMATCH",
    )


_AGAIN = "make the manifest again: codex-ml data manifest FILE"
