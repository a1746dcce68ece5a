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
        description="Longest answer in tokens; null: 256, or fewer where the model has no room for so many.",
    )
    temperature: float = Field(
        default=0.0, ge=0.0, description="Divides the logits; 0: always the most likely token (greedy)."
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Draw among so many most likely tokens; null: no such limit."
    )
    top_p: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Draw among the fewest tokens whose probabilities make up this share; null: no such limit.",
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = Field(
        default=(), description="Texts that end an answer, which stops before them."
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="Of the random numbers where tokens are drawn.")
    batch_size: int = Field(default=32, ge=1, description="Prompts of a file in one forward pass; changes no text.")
    weights: WeightsChoice = Field(
        default="auto",
        description="Weights of a checkpoint: their average (averaged), those of its last step (last), or the average "
        "where there is one (auto).",
    )
