"""The place of records that a caller of the Python API passed in memory."""

from __future__ import annotations

from pathlib import Path

# Below run.output_dir; the files in it exist only during a call.
MEMORY_DIRECTORY = ".memory-records"


def is_memory_file(path: Path) -> bool:
    """Tell whether a data file of a config held records that were passed in memory."""
    return path.parent.name == MEMORY_DIRECTORY
