"""The `model` section: which base model, on which device, in which number format."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import ConfigPath, RelativePath, Rule, Section, Violation


def _one_source(model: ModelSection) -> Violation | None:
    if model.path is None or model.preset is None:
        return None
    return Violation(
        "path",
        "model.path and model.preset are both set, and a model has one source",
        "keep model.path to adapt local weights, or model.preset to start from random weights; set the other to null",
    )


def _preset_has_tokenizer(model: ModelSection) -> Violation | None:
    if model.preset is None or model.tokenizer is not None:
        return None
    return Violation(
        "tokenizer",
        f"model.preset={model.preset} starts from random weights and brings no tokenizer",
        "set model.tokenizer=DIRECTORY (one that holds tokenizer.json)",
    )


def _tokenizer_has_preset(model: ModelSection) -> Violation | None:
    if model.tokenizer is None or model.path is None or model.preset is not None:
        return None
    return Violation(
        "tokenizer",
        "model.tokenizer is only for a preset; weights in model.path bring their own tokenizer",
        "remove model.tokenizer (set it to null)",
    )


class ModelSection(Section):
    """The base model: local weights, or a preset that starts from random weights."""

    section_key: ClassVar[str] = "model"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("model-one-source", ("path", "preset"), _one_source),
        Rule("model-preset-tokenizer", ("preset", "tokenizer"), _preset_has_tokenizer),
        Rule("model-path-tokenizer", ("path", "preset", "tokenizer"), _tokenizer_has_preset),
    )

    path: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None,
        description="Directory of a local causal language model (config.json, *.safetensors, tokenizer files).",
    )
    preset: str | None = Field(
        default=None, min_length=1, description="Architecture to start from random weights, such as llama-tiny."
    )
    tokenizer: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Directory of the tokenizer; only with model.preset."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$",
        description="Where to compute: auto, cpu, cuda or cuda:N; an explicit device that is absent is an error.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Number format of the weights: auto, float32 or bfloat16."
    )
