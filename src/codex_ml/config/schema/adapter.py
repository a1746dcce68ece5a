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
        default="lora", description="lora trains low-rank matrices beside frozen weights; none trains the whole model."
    )
    task_type: TaskType = Field(default="CAUSAL_LM", description="Task type as peft names it.")
    r: int = Field(default=8, ge=1, le=4096, description="Rank of the low-rank matrices.")
    alpha: int = Field(default=16, ge=1, description="Scale of the adapter; the update is multiplied by alpha / r.")
    dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="Dropout on the adapter's input; above 0, accumulation and batch size change the result.",
    )
    bias: Literal["none", "all", "lora_only"] = Field(
        default="none", description="Which bias terms are trained too: none, all or lora_only."
    )
    target_modules: Literal["all-linear"] | _ModuleNames = Field(
        default="all-linear",
        description="all-linear (every linear layer but the output head), or a list of module names.",
    )
