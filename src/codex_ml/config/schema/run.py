"""The `run` section: the name, seed and place of one run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import ConfigPath, RelativePath, Section


class RunSection(Section):
    """What the run is called, what makes it repeatable and where its files go."""

    section_key: ClassVar[str] = "run"

    name: str = Field(
        default="run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=80,
        description="Run name, part of the directory name; letters, digits, '.', '_' and '-' only.",
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Random seed for initialization, dropout and data order."
    )
    output_dir: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Parent directory of run directories; null: runs/ in the working directory."
    )
    resume_from: Annotated[Literal["latest"] | ConfigPath | None, RelativePath(words=frozenset({"latest"}))] = Field(
        default=None,
        description=("Checkpoint or run to resume, or 'latest' (newest run of this name); null: start a new run."),
    )
