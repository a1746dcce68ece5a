"""Environments of tools whose pins conflict with those of codex-ml: below ``.cache/environments``, locked by hash.

``--setup NAME`` makes them; where pip finds packages is its ordinary configuration.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(".cache") / "environments"
STAMP = "installed.txt"


@dataclass(frozen=True)
class ToolEnvironment:
    """A tool, the file of its pinned versions, and what of it is called."""

    name: str
    pins: Path
    program: str

    def directory(self, root: Path) -> Path:
        """Return where it lies in a checkout."""
        return root / ENVIRONMENTS / self.name

    def program_path(self, root: Path) -> Path:
        """Return the program that is called."""
        return self.directory(root) / "bin" / self.program

    def is_current(self, root: Path) -> bool:
        """Return whether it was made whole, from the pins as they are now."""
        stamp = self.directory(root) / STAMP
        return (
            stamp.is_file()
            and stamp.read_bytes() == (root / self.pins).read_bytes()
            and self.program_path(root).is_file()
        )

    def ensure(self, root: Path) -> Path:
        """Return the program, made when it is absent or when its pinned versions have changed.

        Raises
        ------
        subprocess.CalledProcessError
            If pip cannot install it.
        """
        if not self.is_current(root):
            directory = self.directory(root)
            print(f"installing {self.name} into {directory.relative_to(root)} …", flush=True)
            venv.create(directory, with_pip=True, clear=True)
            pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "-qq"]
            # pip compares the hash of every file before any of its code runs.
            requirements = ["--require-hashes", "--requirement", str(root / self.pins)]
            subprocess.run([*pip, *requirements], check=True, cwd=root)
            (directory / STAMP).write_bytes((root / self.pins).read_bytes())
        return self.program_path(root)


SEMGREP = ToolEnvironment("semgrep", Path("tools") / "semgrep" / "constraints.txt", "semgrep")
PIP_AUDIT = ToolEnvironment("pip-audit", Path("tools") / "environments" / "pip-audit.txt", "pip-audit")
COSMIC_RAY = ToolEnvironment("cosmic-ray", Path("tools") / "environments" / "cosmic-ray.txt", "cosmic-ray")
UV = ToolEnvironment("uv", Path("tools") / "environments" / "uv.txt", "uv")
ALL = {one.name: one for one in (SEMGREP, PIP_AUDIT, COSMIC_RAY, UV)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make environments, or show which are there, and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Makes the environments of tools that cannot share ours, or shows them."
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument(
        "--setup", nargs="+", choices=sorted(ALL), default=[], metavar="NAME", help=", ".join(sorted(ALL))
    )
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    try:
        for name in chosen.setup:
            ALL[name].ensure(root)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} cannot be installed: {error}")
        return 2
    for tool in ALL.values():
        print(f"{tool.name}: {'ready' if tool.is_current(root) else 'not installed, or other pins'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
