"""The `generation` section: how `codex-ml generate` chooses tokens, and when an answer ends."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codex_ml.config.schema.base import Section
from codex_ml.config.schema.eval import WeightsChoice


class GenerationSection(Section):
    """Limits and sampling of generated texts."""

    section_key: ClassVar[str] = "generation"

    max_new_tokens: int | None = Field(
        default=None,
        ge=0,
        description=("Maximum length of an answer in tokens; null: 256, or fewer if the context is shorter."),
    )
    temperature: float = Field(default=0.0, ge=0.0, description="Sampling temperature; 0: greedy decoding.")
    top_k: int | None = Field(default=None, ge=1, description="Sample from the k most likely tokens; null: no limit.")
    top_p: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Nucleus (top-p) sampling threshold; null: no limit.",
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = Field(
        default=(), description="Stop strings; an answer ends before the first one."
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Random seed for sampling.")
    batch_size: int = Field(
        default=32, ge=1, description="Prompts of a file per forward pass; does not change answers."
    )
    weights: WeightsChoice = Field(
        default="auto",
        description="Weights to use: averaged, last, or auto (averaged if the checkpoint has them).",
    )
