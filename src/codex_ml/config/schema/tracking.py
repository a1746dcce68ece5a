"""The `tracking` section: sinks of metrics in addition to the NDJSON files of the run."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codex_ml.config.schema.base import Rule, Section, Violation


def _sinks_differ(tracking: TrackingSection) -> Violation | None:
    if len(set(tracking.sinks)) == len(tracking.sinks):
        return None
    return Violation("sinks", "a sink is named twice", "name every sink once")


class TrackingSection(Section):
    """Further sinks; the run's own NDJSON is always written."""

    section_key: ClassVar[str] = "tracking"
    rules: ClassVar[tuple[Rule, ...]] = (Rule("tracking-sinks-differ", ("sinks",), _sinks_differ),)

    sinks: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = Field(
        default=(), description="Additional metric sinks: mlflow (local SQLite store), or names of plugins."
    )
    experiment: str = Field(default="codex-ml", min_length=1, description="Experiment name in these sinks.")
