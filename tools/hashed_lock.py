"""The hashed lock files: every dependency with its version and the SHA-256 of each file that may be installed for it.

``requirements-hashed.txt`` holds the versions of ``constraints.txt`` with torch for CPUs;
``requirements-hashed-cuda.txt`` the same with torch for CUDA and what it needs. pip reads either
(``--require-hashes``); ``make lock`` writes them. Run as a program, this checks that they agree with
``constraints.txt``, and that the lock of every tool environment has hashes.

It needs only Python, because a machine that builds images has no development environment.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONSTRAINTS = "constraints.txt"
LOCK = "requirements-hashed.txt"
CUDA_LOCK = "requirements-hashed-cuda.txt"
TOOL_LOCKS = (
    "tools/environments/cosmic-ray.txt",
    "tools/environments/pip-audit.txt",
    "tools/environments/uv.txt",
    "tools/semgrep/constraints.txt",
)
CORE = "core"
BUILD = "build"
CUDA = "cuda"

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!]+)")
_HASH = re.compile(r"--hash=sha256:(?P<digest>[0-9a-f]{64})")
_GROUPS = re.compile(r"# for: (?P<groups>[a-z, -]+?)(?P<built>; source distribution only)?")


class LockError(ValueError):
    """A lock file cannot be read; the message names the line."""


@dataclass(frozen=True)
class Locked:
    """One package.

    Attributes
    ----------
    name, version : str
        As in ``constraints.txt``, without a local version.
    digests : tuple of str
        SHA-256 of every file that may be installed for it, in hexadecimal, sorted.
    groups : tuple of str
        What needs it: ``core``, extras of codex-ml, or ``build``; empty in the locks of tools.
    is_source_only : bool
        Whether the index has no wheel of it, so that a wheel is built from its source distribution.
    """

    name: str
    version: str
    digests: tuple[str, ...]
    groups: tuple[str, ...] = ()
    is_source_only: bool = False


def canonical(name: str) -> str:
    """Return the canonical form of a package name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(file: Path) -> dict[str, Locked]:
    """Return the packages of a lock file by canonical name.

    Raises
    ------
    LockError
        If the file is missing, a line is not a pinned requirement, a SHA-256 or a comment, or a package occurs twice.
    """
    if not file.is_file():
        raise LockError(f"{file.name}: missing (fix: make lock)")
    return parse_lock(file.read_text(encoding="utf-8"), file.name)


def parse_lock(text: str, name: str) -> dict[str, Locked]:
    """Return the packages in the text of a lock file by canonical name.

    Raises
    ------
    LockError
        As in `read_lock`.
    """
    packages: dict[str, Locked] = {}
    current = ""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.strip().removesuffix("\\").strip()
        if match := _REQUIREMENT.fullmatch(words):
            current = canonical(match["name"])
            if current in packages:
                raise LockError(f"{name}:{number}: {current} is there twice")
            packages[current] = Locked(match["name"], match["version"], ())
        elif (match := _HASH.fullmatch(words)) and current:
            before = packages[current]
            digests = (*before.digests, match["digest"])
            packages[current] = Locked(before.name, before.version, digests)
        elif (match := _GROUPS.fullmatch(words)) and current:
            before = packages[current]
            groups = tuple(match["groups"].split(", "))
            packages[current] = Locked(before.name, before.version, before.digests, groups, bool(match["built"]))
        elif words and not words.startswith("#"):
            raise LockError(f"{name}:{number}: neither NAME==VERSION nor --hash=sha256:DIGEST (fix: make lock)")
    return packages


def lock_text(header: str, packages: Iterable[Locked]) -> str:
    """Return the text of a lock file for pip, sorted by name."""
    parts = [header]
    for package in sorted(packages, key=lambda one: one.name.lower()):
        lines = [f"{package.name}=={package.version}"]
        lines += [f"    --hash=sha256:{digest}" for digest in sorted(set(package.digests))]
        parts.append(" \\\n".join(lines) + "\n")
        if package.groups:
            built = "; source distribution only" if package.is_source_only else ""
            parts.append(f"    # for: {', '.join(package.groups)}{built}\n")
    return "".join(parts)


def chosen(packages: Mapping[str, Locked], groups: Collection[str]) -> dict[str, Locked]:
    """Return the packages that any of these groups needs."""
    return {name: package for name, package in packages.items() if not set(package.groups).isdisjoint(groups)}


def problems_of_hashes(name: str, packages: Mapping[str, Locked]) -> list[str]:
    """Return the packages of a lock file that have no hash."""
    if not packages:
        return [f"{name}: no package is locked (fix: make lock)"]
    return [
        f"{name}: {one.name}=={one.version} has no hash (fix: make lock)"
        for one in packages.values()
        if not one.digests
    ]


def problems_of_agreement(file: str, constraints: Mapping[str, str], locked: Mapping[str, Locked]) -> list[str]:
    """Return where a lock file and ``constraints.txt`` differ; packages for CUDA alone are only in the lock.

    Parameters
    ----------
    file : str
        The name of the lock file.
    constraints : mapping
        Version by canonical name.
    locked : mapping
        The packages of the lock file.
    """
    problems = []
    locked = {name: package for name, package in locked.items() if package.groups != (CUDA,)}
    for name in sorted(constraints.keys() | locked.keys()):
        if name not in locked:
            problems.append(f"{file}: {name} is missing (expected {constraints[name]}, as in {CONSTRAINTS})")
        elif name not in constraints:
            problems.append(f"{file}: {name} is not in {CONSTRAINTS}")
        elif locked[name].version != constraints[name]:
            problems.append(f"{file}: {name} (got {locked[name].version}, expected {constraints[name]})")
    return [f"{problem}; fix: make lock" for problem in problems]


def read_constraints(file: Path) -> dict[str, str]:
    """Return the versions of a constraints file by canonical name.

    Raises
    ------
    LockError
        If a line is not a pinned requirement; with a hash there, pip would refuse ``-e .``.
    """
    versions = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            raise LockError(f"{file.name}:{number}: not NAME==VERSION (a hash makes pip refuse -e .)")
        versions[canonical(match["name"])] = match["version"]
    return versions


def problems_of_checkout(root: Path) -> tuple[list[str], int]:
    """Return the problems of the lock files of a checkout, and the number of packages in them."""
    problems = []
    count = 0
    for name in (LOCK, CUDA_LOCK, *TOOL_LOCKS):
        try:
            packages = read_lock(root / name)
            problems += problems_of_hashes(name, packages)
            count += len(packages)
            if name in (LOCK, CUDA_LOCK):
                constraints = read_constraints(root / CONSTRAINTS)
                problems += [f"{name}: {one.name} has no '# for:' line" for one in packages.values() if not one.groups]
                problems += problems_of_agreement(name, constraints, packages)
        except LockError as error:
            problems.append(str(error))
    return problems, count


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the lock files of a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description=f"Checks that the hashed lock files agree with {CONSTRAINTS}.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    problems, count = problems_of_checkout(parser.parse_args(arguments).root)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in {count} locked packages")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
