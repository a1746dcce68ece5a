"""Writes constraints.txt again: every version that `pip install -e '.[dev]'` puts into a clean environment today."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

HEADER = "# Every version a make target installs; made from a clean environment by: make lock\n"


def constraints_of(frozen: str) -> str:
    """Return the text of a constraints file for what ``pip freeze --all`` printed.

    The checkout itself and pip are left out, and the local part of a version (``2.13.0+cpu``), which another machine's
    index does not have.
    """
    lines = []
    for line in frozen.splitlines():
        name, separator, version = line.partition("==")
        if separator and not line.startswith(("#", "-")) and name not in ("pip", "codex-ml"):
            lines.append(f"{name}=={version.partition('+')[0]}")
    return HEADER + "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def torch_requirement(project: str) -> str:
    """Return what the text of pyproject.toml asks of torch.

    A bare ``torch`` would be the newest there is, with its CUDA packages; taken back for the version that the project
    allows, it would leave them behind.
    """
    dependencies = tomllib.loads(project)["project"]["dependencies"]
    return next(text for text in dependencies if re.match(r"torch(?![\w-])", text))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environment, ask it for its versions, and write the file."""
    parser = argparse.ArgumentParser(description="Writes constraints.txt again from a clean environment.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--torch", help="what to install first, such as torch==2.13.0 (default: as pyproject.toml)")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    torch = chosen.torch or torch_requirement((root / "pyproject.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="codex-ml-lock-") as directory:
        venv.create(directory, with_pip=True)
        pip = [str(Path(directory) / "bin" / "python"), "-m", "pip"]
        # torch first: with the rest, pip may draw in a CUDA build on a machine without a GPU.
        subprocess.run([*pip, "install", "--quiet", torch], check=True)
        subprocess.run([*pip, "install", "--quiet", "--editable", ".[dev]"], check=True, cwd=root)
        # The build backend, so that an environment without build isolation can be made too.
        subprocess.run([*pip, "install", "--quiet", "hatchling"], check=True)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    (root / "constraints.txt").write_text(constraints_of(frozen), encoding="utf-8")
    print(f"wrote {root / 'constraints.txt'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
