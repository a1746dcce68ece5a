"""The key of an entry of the token cache: the digest of all that decides about ids, masks, account and findings."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from functools import cache as remembered
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import codex_ml
from codex_ml.config.schema.data import DataSection
from codex_ml.data.tokens.token_cache import CACHE_VERSION
from codex_ml.storage import bytes_digest, file_digest

# Where the records lie, and where the entry does, changes nothing in it; what is refused afterwards does not either.
NOT_IN_KEY = frozenset({"path", "files", "train", "valid", "test", "cache_dir", "cache_min_bytes", "max_overlap_share"})
# What stands between the bytes of a file and token ids, besides codex-ml itself.
_LIBRARIES = (
    "transformers",
    "tokenizers",
    "sentencepiece",
    "jinja2",
    "orjson",
    "pydantic",
    "numpy",
    "datasets",
    "pyarrow",
)
_ROOMS = ("data", "safety", "models")


def entry_key(data: DataSection, files: Mapping[str, Path], splits: Collection[str], made_by: Mapping[str, Any]) -> str:
    """Return the digest of all that decides about ids, masks, account and findings of some splits.

    Whatever the data section says is in it, so an option that is added later is too, with all code of the rooms that
    have a hand in it: an entry is rather made once too often than used once too long.

    Parameters
    ----------
    data : DataSection
        How the records are read, split and cut.
    files : mapping
        The files that are read, by the key of the section, in the order in which they are: records lie in it too.
    splits : collection of str
        The splits that are built.
    made_by : mapping
        See `CacheUse`.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    parts = {
        "cache_version": CACHE_VERSION,
        "code": _code_digest(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "data": data.model_dump(mode="json", exclude=set(NOT_IN_KEY)),
        "files": [[key, path.name, file_digest(path)] for key, path in files.items()],
        "splits": sorted(splits),
        "made_by": dict(made_by),
    }
    return bytes_digest(json.dumps(parts, sort_keys=True).encode("utf-8")).removeprefix("sha256:")


@remembered
def _code_digest() -> str:
    package = Path(codex_ml.__file__).parent
    sources = sorted(file for room in _ROOMS for file in (package / room).rglob("*.py"))
    assert {file.relative_to(package).parts[0] for file in sources} == set(_ROOMS), "a room has been moved"
    return bytes_digest("".join(f"{file.relative_to(package)} {file_digest(file)}\n" for file in sources).encode())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
