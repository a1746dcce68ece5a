"""The `logging` section: how large one file of metrics or events may grow."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from codex_ml.config.schema.base import Section


class LoggingSection(Section):
    """Rotation of the NDJSON files; rotated files are kept."""

    section_key: ClassVar[str] = "logging"

    max_bytes: int = Field(
        default=10_485_760, ge=1024, description="Size in bytes at which an NDJSON file is rotated; all parts are kept."
    )
