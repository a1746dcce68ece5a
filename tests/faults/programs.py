"""Run programs other than the plain command line in tests of faults."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_program(program: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program without standard input, and return its exit code, stdout and stderr."""
    return subprocess.run(
        program, cwd=directory, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300
    )
