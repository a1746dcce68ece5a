"""The files under version control: what the checks of this folder look at, and neither caches nor environments."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class NothingToCheckError(Exception):
    """There is nothing to look at: a check that saw no file must not count as passed."""


def tracked_files(root: Path, *patterns: str) -> list[Path]:
    """Return the tracked and the not ignored new files below ``root`` that match any git pattern, sorted.

    Parameters
    ----------
    root : Path
        A directory inside a git work tree; the paths returned begin with it.
    *patterns : str
        Git path patterns such as ``"src/*.py"``; without one, every file.

    Raises
    ------
    NothingToCheckError
        If no file matches.
    subprocess.CalledProcessError
        If git fails, for example outside a work tree.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    answer = subprocess.run(command, cwd=root, check=True, capture_output=True)
    names = sorted({name.decode("utf-8") for name in answer.stdout.split(b"\0") if name})
    # A file that was deleted and not yet committed is still listed.
    files = [root / name for name in names if (root / name).is_file()]
    if not files:
        raise NothingToCheckError(f"no file below {root} matches {', '.join(patterns) or 'anything'}")
    return files


def report(problems: Sequence[str], checked: str) -> int:
    """Print each problem and a closing line; return 1 when there was one, else 0."""
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in {checked}" if problems else f"{checked}: nothing to object to")
    return 1 if problems else 0
