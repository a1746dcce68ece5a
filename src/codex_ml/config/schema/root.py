"""The whole configuration of each command that reads one: all its sections, and the rules across them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from codex_ml.config.schema.adapter import AdapterSection
from codex_ml.config.schema.base import Rule, Section, Violation
from codex_ml.config.schema.data import DataSection
from codex_ml.config.schema.eval import EvalSection
from codex_ml.config.schema.generation import GenerationSection
from codex_ml.config.schema.logging import LoggingSection
from codex_ml.config.schema.model import ModelSection
from codex_ml.config.schema.run import RunSection
from codex_ml.config.schema.safety import SafetySection
from codex_ml.config.schema.serve import ServeSection
from codex_ml.config.schema.tracking import TrackingSection
from codex_ml.config.schema.training import TrainingSection

CURRENT_SCHEMA_VERSION = 1


def _model_given(config: RunConfig) -> Violation | None:
    model = config.model
    if any(source is not None for source in (model.path, model.name, model.preset)):
        return None
    return Violation(
        "model.path",
        "no model is given",
        "set model.path=DIRECTORY (local weights), model.name=ORGANISATION/MODEL (in the Hugging Face cache), or "
        "model.preset=NAME with model.tokenizer=DIRECTORY",
    )


def _evaluation_has_data(config: RunConfig) -> Violation | None:
    if config.data.has_split(config.eval.split):
        return None
    name = config.eval.split
    if config.data.path is not None:
        return Violation(
            "eval.split",
            f"eval.split={name}, but the share of {name} in data.split.ratios is 0",
            f"give {name} a share above 0, or choose another eval.split",
        )
    return Violation(
        "eval.split",
        f"eval.split={name}, but neither data.path nor data.{name} names a file",
        f"set data.{name}=FILE (or data.path=FILE), or choose another eval.split",
    )


def _training_has_data(config: TrainConfig) -> Violation | None:
    if config.data.is_divided or config.data.train is not None:
        return None
    return Violation(
        "data.path",
        "no data to train on is given",
        "set data.path=FILE.jsonl (split by data.split), data.files={NAME:FILE.jsonl,…}, or data.train=FILE.jsonl",
    )


def _periodic_evaluation_has_data(config: TrainConfig) -> Violation | None:
    if config.training.eval_steps is None or not (config.data.is_divided or config.data.train is not None):
        return None
    if config.data.has_split("valid"):
        return None
    return Violation(
        "training.eval_steps",
        "training evaluates on the valid split, which has no data",
        "set data.valid=FILE (or a share for valid in data.split.ratios), or training.eval_steps=null",
    )


def _preset_trains_all(config: TrainConfig) -> Violation | None:
    if config.model.preset is None or config.adapter.kind == "none":
        return None
    return Violation(
        "adapter.kind",
        f"model.preset={config.model.preset} starts from random weights: an adapter would leave them random",
        "set adapter=none (adapter.kind=none), or give trained weights by model.path or model.name",
    )


class RunConfig(Section):
    """What all of them have in common."""

    schema_version: int = Field(
        default=CURRENT_SCHEMA_VERSION,
        ge=CURRENT_SCHEMA_VERSION,
        le=CURRENT_SCHEMA_VERSION,
        description=("Version of the configuration keys; an older file is migrated, a newer one is an error."),
    )
    offline: bool = Field(default=True, description="Reject every connection to another machine.")
    run: RunSection = Field(default_factory=RunSection, description="Name, seed and place of the run.")
    model: ModelSection = Field(default_factory=ModelSection, description="The base model.")
    data: DataSection = Field(default_factory=DataSection, description="The records.")
    eval: EvalSection = Field(default_factory=EvalSection, description="How the model is evaluated.")
    safety: SafetySection = Field(default_factory=SafetySection, description="The filters.")
    tracking: TrackingSection = Field(default_factory=TrackingSection, description="Where metrics go.")
    logging: LoggingSection = Field(default_factory=LoggingSection, description="Rotation of the logs.")


class TrainConfig(RunConfig):
    """Everything `codex-ml train` reads."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("model-given", ("model.path", "model.name", "model.preset"), _model_given),
        Rule("training-data-given", ("data.path", "data.train"), _training_has_data),
        Rule(
            "periodic-evaluation-data",
            ("training.eval_steps", "data.path", "data.train", "data.valid", "data.split.ratios"),
            _periodic_evaluation_has_data,
        ),
        Rule("preset-trains-all", ("model.preset", "adapter.kind"), _preset_trains_all),
    )

    adapter: AdapterSection = Field(default_factory=AdapterSection, description="What is trained on top of the model.")
    training: TrainingSection = Field(default_factory=TrainingSection, description="How it is trained.")
    generation: GenerationSection = Field(
        default_factory=GenerationSection, description="How texts are generated from its checkpoints."
    )
    serve: ServeSection = Field(default_factory=ServeSection, description="How its checkpoints are served.")


class EvaluateConfig(RunConfig):
    """Everything `codex-ml evaluate` reads."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("model-given", ("model.path", "model.name", "model.preset"), _model_given),
        Rule(
            "evaluation-data",
            ("eval.split", "data.path", "data.train", "data.valid", "data.test", "data.split.ratios"),
            _evaluation_has_data,
        ),
    )


class GenerateConfig(RunConfig):
    """Everything `codex-ml generate` reads; of the data only how a file of prompts is read."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("model-given", ("model.path", "model.name", "model.preset"), _model_given),
    )

    generation: GenerationSection = Field(default_factory=GenerationSection, description="How texts are generated.")


class ServeConfig(GenerateConfig):
    """Everything `codex-ml serve` reads."""

    serve: ServeSection = Field(default_factory=ServeSection, description="Where it listens, and how much it takes.")
