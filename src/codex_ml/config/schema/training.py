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
        default=None, ge=1, description=f"Passes over the training records; with max_steps null too: {DEFAULT_EPOCHS}."
    )
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps after which training ends.")
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=DEFAULT_MICRO_BATCH_SIZE,
        description="Records in one forward pass; auto: as many of a step of "
        f"{DEFAULT_MICRO_BATCH_SIZE} x gradient_accumulation_steps records as fit into half of the memory at hand.",
    )
    gradient_accumulation_steps: int = Field(default=1, ge=1, description="Micro-batches in one optimizer step.")
    tokens_per_micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Positions in one forward pass at most: a step of micro_batch_size x gradient_accumulation_steps "
        "records is cut by it instead of by micro_batch_size; a longer record stands alone; null: by records.",
    )
    # The bound stands far above any use, below what overflows 32-bit weights in one step.
    learning_rate: float = Field(default=2e-4, gt=0, le=1e9, description="Peak learning rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay of AdamW.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean of gradients.")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the mean of squared gradients.")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="Added to the denominator of AdamW.")
    schedule: str = Field(
        default="cosine",
        min_length=1,
        description="Learning-rate schedule after the warmup: constant, linear, cosine, or the name of a plugin.",
    )
    warmup_steps: int = Field(default=0, ge=0, description="Optimizer steps over which the learning rate rises from 0.")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Largest gradient norm, above which gradients are scaled down; null: never."
    )
    mixed_precision: MixedPrecision = Field(
        default="none", description="16-bit type of the arithmetic over float32 weights; none: that of the model."
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of an exponential moving average of the trained weights, saved as ema/; null: none.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Keep each layer's input only and compute the layer again backwards: less memory, same results.",
    )
    deterministic: bool = Field(
        default=False,
        description="Ask a GPU for kernels that repeat bit for bit; what has none is named. A CPU always repeats.",
    )
    logging_steps: int = Field(default=10, ge=1, description="Optimizer steps between two log lines.")
    eval_steps: int | None = Field(default=None, ge=1, description="Optimizer steps between evaluations; null: none.")
    save_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps between two checkpoints; null: one at the end only."
    )
    save_minutes: float | None = Field(
        default=None, gt=0, description="Minutes after a checkpoint until the next is written anyway; null: never."
    )
    keep_last: int = Field(default=2, ge=1, description="Newest checkpoints that are kept.")
    keep_best: int = Field(default=1, ge=0, description="Best checkpoints by validation loss, kept besides.")
    keep_every_steps: int | None = Field(
        default=None, ge=1, description="Checkpoints at multiples of so many steps are kept for good; null: none."
    )
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="Evaluations without improvement after which training stops; null: never."
    )
    early_stopping_min_delta: float = Field(
        default=0.0,
        ge=0,
        description="Smallest fall of the validation loss that counts as an improvement, measured from the last loss "
        "that did.",
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
