"""The `adapter` section: what is trained on top of the base model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import Section

_ModuleName = Annotated[str, Field(min_length=1)]
_ModuleNames = Annotated[tuple[_ModuleName, ...], Field(min_length=1, strict=False)]
TaskType = Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"]


class AdapterSection(Section):
    """A LoRA adapter, or none (every weight of the model is trained)."""

    section_key: ClassVar[str] = "adapter"

    kind: Literal["lora", "none"] = Field(
        default="lora", description="lora: train low-rank adapters on frozen weights; none: train all weights."
    )
    task_type: TaskType = Field(default="CAUSAL_LM", description="PEFT task type.")
    r: int = Field(default=8, ge=1, le=4096, description="LoRA rank.")
    alpha: int = Field(default=16, ge=1, description="LoRA scaling; the update is multiplied by alpha / r.")
    dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description=("Dropout probability on the adapter input; above 0, accumulation and batch size change results."),
    )
    bias: Literal["none", "all", "lora_only"] = Field(
        default="none", description="Bias terms to train: none, all or lora_only."
    )
    target_modules: Literal["all-linear"] | _ModuleNames = Field(
        default="all-linear",
        description=(
            "Modules with an adapter: all-linear (every linear layer except the output head), or a list of names."
        ),
    )
