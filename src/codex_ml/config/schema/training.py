"""The `training` section: how long, how fast and how often."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import Rule, Section, Violation

MixedPrecision = Literal["none", "float16", "bfloat16"]
# Used when neither training.epochs nor training.max_steps is given.
DEFAULT_EPOCHS = 3
# Records of a pass where nothing is said; with `auto`, of a step for each of gradient_accumulation_steps.
DEFAULT_MICRO_BATCH_SIZE = 8


def _one_length(training: TrainingSection) -> Violation | None:
    if training.epochs is None or training.max_steps is None:
        return None
    return Violation(
        "epochs",
        "training.epochs and training.max_steps are both set, and only one can say when to stop",
        "set one of the two to null",
    )


def _one_cut(training: TrainingSection) -> Violation | None:
    if training.micro_batch_size != "auto" or training.tokens_per_micro_batch is None:
        return None
    return Violation(
        "tokens_per_micro_batch",
        "training.micro_batch_size=auto and training.tokens_per_micro_batch both say how a step is cut",
        "set training.tokens_per_micro_batch=null, or training.micro_batch_size to a number",
    )


def _patience_needs_evaluation(training: TrainingSection) -> Violation | None:
    if training.early_stopping_patience is None or training.eval_steps is not None:
        return None
    return Violation(
        "early_stopping_patience",
        "early stopping counts evaluations, and training.eval_steps is null: there would be none",
        "set training.eval_steps, or training.early_stopping_patience=null",
    )


def _warmup_ends(training: TrainingSection) -> Violation | None:
    if training.max_steps is None or training.warmup_steps < training.max_steps:
        return None
    return Violation(
        "warmup_steps",
        f"the learning rate would rise over {training.warmup_steps} steps, and training ends after "
        f"{training.max_steps} (training.max_steps): it would never be reached",
        f"set training.warmup_steps={training.max_steps // 10} (below training.max_steps), or train for longer",
    )


def _kept_steps_are_saved(training: TrainingSection) -> Violation | None:
    kept, saved = training.keep_every_steps, training.save_steps
    if kept is None or (saved is not None and kept % saved == 0):
        return None
    written = "none but the last" if saved is None else f"one every {saved} steps"
    fix = f"set training.save_steps={kept}"
    if saved is not None:
        fix = f"set training.keep_every_steps={-(-kept // saved) * saved}, a multiple of training.save_steps"
    return Violation(
        "keep_every_steps",
        f"checkpoints at multiples of {kept} steps are to be kept, and training.save_steps writes {written}",
        fix,
    )


class TrainingSection(Section):
    """Length, batch, optimizer, schedule and the intervals of logging, evaluation and saving."""

    section_key: ClassVar[str] = "training"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("training-one-length", ("epochs", "max_steps"), _one_length),
        Rule("training-one-cut", ("micro_batch_size", "tokens_per_micro_batch"), _one_cut),
        Rule("training-patience", ("early_stopping_patience", "eval_steps"), _patience_needs_evaluation),
        Rule("training-kept-steps-are-saved", ("keep_every_steps", "save_steps"), _kept_steps_are_saved),
        Rule("training-warmup-ends", ("warmup_steps", "max_steps"), _warmup_ends),
    )

    epochs: int | None = Field(
        default=None, ge=1, description=f"Passes over the training records; {DEFAULT_EPOCHS} if max_steps is null too."
    )
    max_steps: int | None = Field(default=None, ge=1, description="Number of optimizer steps.")
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=DEFAULT_MICRO_BATCH_SIZE,
        description="Records per forward pass; auto: as many of the "
        f"{DEFAULT_MICRO_BATCH_SIZE} x gradient_accumulation_steps records of a step as fit into half of the free "
        "memory.",
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, description="Micro-batches per optimizer step.")
    tokens_per_micro_batch: int | None = Field(
        default=None,
        ge=1,
        description=(
            "Maximum positions per forward pass: a step of micro_batch_size x "
            "gradient_accumulation_steps records is divided by tokens instead of by records; a "
            "longer record is a micro-batch of its own; null: divide by records."
        ),
    )
    # The bound is far above any use and below values that overflow 32-bit weights in one step.
    learning_rate: float = Field(default=2e-4, gt=0, le=1e9, description="Peak learning rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay of AdamW.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay rate of the gradient mean (AdamW).")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="Decay rate of the squared-gradient mean (AdamW).")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="Term added to the denominator of AdamW.")
    schedule: str = Field(
        default="cosine",
        min_length=1,
        description=("Learning-rate schedule after warmup: constant, linear, cosine, or the name of a plugin."),
    )
    warmup_steps: int = Field(default=0, ge=0, description="Optimizer steps of linear warmup from 0.")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Maximum gradient norm for clipping; null: no clipping."
    )
    mixed_precision: MixedPrecision = Field(
        default="none",
        description=("16-bit compute type over float32 weights; none: compute in the dtype of the model."),
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of an exponential moving average of the trained weights, saved as ema/; null: none.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass to save memory; results are equal.",
    )
    deterministic: bool = Field(
        default=False,
        description=(
            "Use deterministic GPU kernels; report operations that lack one. CPU results are always repeatable."
        ),
    )
    logging_steps: int = Field(default=10, ge=1, description="Optimizer steps between log lines.")
    eval_steps: int | None = Field(default=None, ge=1, description="Optimizer steps between validations; null: none.")
    save_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps between checkpoints; null: only at the end."
    )
    save_minutes: float | None = Field(
        default=None, gt=0, description="Maximum minutes between checkpoints; null: no limit."
    )
    keep_last: int = Field(default=2, ge=1, description="Number of newest checkpoints to keep.")
    keep_best: int = Field(
        default=1, ge=0, description="Number of best checkpoints by validation loss to keep in addition."
    )
    keep_every_steps: int | None = Field(
        default=None, ge=1, description="Keep every checkpoint at a multiple of this many steps; null: none."
    )
    early_stopping_patience: int | None = Field(
        default=None,
        ge=1,
        description="Validations without improvement before training stops; null: no early stopping.",
    )
    early_stopping_min_delta: float = Field(
        default=0.0,
        ge=0,
        description=(
            "Minimum decrease of the validation loss that counts as an improvement, measured from "
            "the last one that did."
        ),
    )

    @property
    def records_per_pass(self) -> int:
        """Records in one forward pass, once that is a number."""
        assert self.micro_batch_size != "auto", "the recipe resolves it before anything is planned"
        return self.micro_batch_size

    @property
    def records_per_step(self) -> int:
        """Records of a full accumulation window: the same however it is cut."""
        size = DEFAULT_MICRO_BATCH_SIZE if self.micro_batch_size == "auto" else self.micro_batch_size
        return size * self.gradient_accumulation_steps
