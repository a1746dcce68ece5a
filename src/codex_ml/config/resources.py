"""Finds the files that come with the toolkit, in a wheel or beside an editable checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from codex_ml.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]


def packaged_directory(name: Literal["configs", "examples"], package: Path = _PACKAGE) -> Path:
    """Return the directory of configurations or examples.

    Parameters
    ----------
    name : str
        ``"configs"`` or ``"examples"``.
    package : Path
        Directory of the ``codex_ml`` package: a wheel holds the files in it, a checkout beside its ``src``.

    Raises
    ------
    UserError
        If neither place holds the directory: the installation is damaged.
    """
    candidates = (package / "_packaged" / name, package.parents[1] / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"the packaged directory {name!r} is missing",
        why=f"looked in {' and '.join(str(candidate) for candidate in candidates)}",
        fix="install codex-ml again",
    )
