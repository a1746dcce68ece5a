"""The `model` section: which base model, on which device, in which number format."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codex_ml.config.schema.base import ConfigPath, RelativePath, Rule, Section, Violation

# As on the hub: letters, digits, '_', '-' and single points. Neither can lead out of the cache directory.
_NAME_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.[A-Za-z0-9_-])*"
_NAME_PATTERN = rf"^{_NAME_PART}(?:/{_NAME_PART})?$"
_REVISION_PATTERN = rf"^{_NAME_PART}(?:/{_NAME_PART})*$"


def _one_source(model: ModelSection) -> Violation | None:
    sources = {"path": model.path, "name": model.name, "preset": model.preset}
    given = [f"model.{key}" for key, value in sources.items() if value is not None]
    if len(given) < 2:
        return None
    return Violation(
        given[0].removeprefix("model."),
        f"{' and '.join(given)} are set together, and a model has one source",
        "keep model.path (a local directory), model.name (the Hugging Face cache) or model.preset (random weights); "
        "set the others to null",
    )


def _revision_has_name(model: ModelSection) -> Violation | None:
    if model.revision is None or model.name is not None:
        return None
    return Violation(
        "revision",
        "model.revision chooses among the snapshots of a model.name, and none is given",
        "remove model.revision (set it to null), or name the model: model.name=ORGANISATION/MODEL",
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
    if model.tokenizer is None or model.preset is not None or (model.path is None and model.name is None):
        return None
    return Violation(
        "tokenizer",
        "model.tokenizer is only for a preset; trained weights bring their own tokenizer",
        "remove model.tokenizer (set it to null)",
    )


class ModelSection(Section):
    """The base model: local weights by directory or by name, or a preset that starts from random weights."""

    section_key: ClassVar[str] = "model"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("model-one-source", ("path", "name", "preset"), _one_source),
        Rule("model-revision-name", ("name", "revision"), _revision_has_name),
        Rule("model-preset-tokenizer", ("preset", "tokenizer"), _preset_has_tokenizer),
        Rule("model-path-tokenizer", ("path", "name", "preset", "tokenizer"), _tokenizer_has_preset),
    )

    path: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None,
        description="Directory of a local causal language model (config.json, *.safetensors, tokenizer files).",
    )
    name: str | None = Field(
        default=None,
        pattern=_NAME_PATTERN,
        max_length=200,
        description=("Model in the local Hugging Face cache, as ORGANIZATION/MODEL; nothing is downloaded."),
    )
    revision: str | None = Field(
        default=None,
        pattern=_REVISION_PATTERN,
        max_length=200,
        description="Branch, tag or commit of model.name in the cache; null: main.",
    )
    preset: str | None = Field(
        default=None, min_length=1, description="Architecture to initialize with random weights, such as llama-tiny."
    )
    tokenizer: Annotated[ConfigPath | None, RelativePath()] = Field(
        default=None, description="Tokenizer directory; only with model.preset."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$",
        description=("Device: auto, cpu, cuda or cuda:N; an explicit device that is not available is an error."),
    )
    batch_layout: Literal["auto", "ragged", "padded"] = Field(
        default="auto",
        description=(
            "Batch layout: ragged (records concatenated without padding), padded (to the longest "
            "record), or auto (ragged where it is tested for the model family). Results are equal "
            "except for which values dropout drops."
        ),
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Number format of the base weights: auto, float32 or bfloat16."
    )
