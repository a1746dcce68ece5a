"""The `logging` section: how large one file of metrics or events may grow, and the whole of the debug log."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from codex_ml.config.schema.base import Section


class LoggingSection(Section):
    """Rotation of the NDJSON files, whose parts are all kept, and of the debug log, whose old parts go."""

    section_key: ClassVar[str] = "logging"

    max_bytes: int = Field(
        default=10_485_760,
        ge=1024,
        description="Size in bytes at which a log file is rotated; NDJSON logs keep all parts.",
    )
    # Without a second part, the standard library would never rotate, and the log never be bounded.
    backup_count: int = Field(default=3, ge=1, description="Number of old parts of debug.log to keep.")
