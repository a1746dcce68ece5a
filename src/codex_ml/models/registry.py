"""Loads causal language models and tokenizers from local directories, or makes a model from a preset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from codex_ml.config.schema.model import ModelSection
from codex_ml.errors import ModelError
from codex_ml.io.atomic import bytes_digest, file_digest, json_bytes
from codex_ml.io.native_calls import native_call, panic_as_error
from codex_ml.models.device import Choice, choose_device, choose_dtype, torch_dtype
from codex_ml.models.directory import (
    check_model_directory,
    check_tokenizer_directory,
    model_digest,
    tokenizer_files_digest,
)
from codex_ml.models.directory_guard import is_computed
from codex_ml.models.presets import PRESETS
from codex_ml.models.source import Source, locate_model, locate_tokenizer
from codex_ml.models.tokenizer_guard import probe_tokenizer
from codex_ml.models.trial import FLOAT_FORMATS, read_config, rehearse, stored_dtype, try_forward


@dataclass(frozen=True)
class BaseModel:
    """A model on its device, with what was chosen, the digest of what was read, and where (None for a preset)."""

    model: PreTrainedModel
    device: Choice
    dtype: Choice
    digest: str
    source: Source | None = None


@dataclass(frozen=True)
class MetaModel:
    """A model whose parameters have shapes and types and no numbers, and what will be chosen when it is loaded."""

    model: PreTrainedModel
    device: Choice
    dtype: Choice


def load_tokenizer(model_config: ModelSection) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the model of a config.

    Raises
    ------
    ModelError
        If it is absent, unreadable, or has no end-of-sequence token.
    """
    source = locate_tokenizer(model_config)
    return load_tokenizer_directory(source.directory, source.key)


def load_tokenizer_directory(directory: Path, key: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory; see `load_tokenizer`."""
    check_tokenizer_directory(directory, key)
    probe_tokenizer(directory / "tokenizer.json", key)
    try:
        with panic_as_error():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(  # nosec B615: a directory, no hub
                directory, local_files_only=True, trust_remote_code=False
            )
            _keep_one_template(tokenizer)
        with native_call():
            _try_out(tokenizer)
    except MemoryError:
        raise
    except Exception as error:  # the Rust side raises bare exceptions on files that make no tokenizer
        # AutoTokenizer reads config.json first: the fault may be there.
        if (directory / "config.json").is_file():
            with _explained(directory, key):
                read_config(directory)
        raise ModelError(
            f"{key}: the tokenizer in {directory} cannot be read",
            why=_reason(error),
            fix="copy the tokenizer files again from their source",
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{key}: the tokenizer in {directory} has no end-of-sequence token",
            why="a model that never sees an end does not learn to stop",
            fix="set eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token_id is None:
        # Padding is masked by position, so any id will do; eos is always there.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_model(
    model_config: ModelSection,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    digest_of: Callable[[Path], str] = file_digest,
) -> BaseModel:
    """Load the model of a config from its directory or the local cache, or make it from its preset under the seed.

    Parameters
    ----------
    model_config : ModelSection
        What the config asks for.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer; gives a preset its vocabulary.
    seed : int
        Of a preset's random weights.
    digest_of : callable
        Gives the digest of a file of weights; a cache may stand in for reading it.

    Raises
    ------
    ModelError
        If weights are absent, partial or damaged, or the device or dtype cannot be had.
    """
    device = choose_device(model_config.device)
    source = locate_model(model_config)
    if source is not None:
        dtype = _dtype_of(model_config, device, source)
        model = load_model_directory(source.directory, dtype.value, source.key)
        digest = model_digest(source.directory, digest_of)
    else:
        dtype = _preset_dtype(model_config.dtype)
        model, digest = _make_from_preset(model_config.preset or "", tokenizer, seed)
    _check_vocabulary(model, tokenizer)
    placed: PreTrainedModel = model.to(device.value)  # type: ignore[arg-type]
    if source is not None:
        try_forward(placed, source.directory, source.key)
    return BaseModel(model=placed, device=device, dtype=dtype, digest=digest, source=source)


def build_meta_model(model_config: ModelSection, tokenizer: PreTrainedTokenizerBase) -> MetaModel:
    """Build the model of a config on the meta device, after the checks that loading makes of its files.

    Parameters
    ----------
    model_config : ModelSection
        What the config asks for.
    tokenizer : PreTrainedTokenizerBase
        Gives a preset its vocabulary.

    Raises
    ------
    ModelError
        If the files of the model are refused or make no model, or the device or dtype cannot be had.
    """
    device = choose_device(model_config.device)
    source = locate_model(model_config)
    if source is None:
        with torch.device("meta"):
            model: PreTrainedModel = LlamaForCausalLM(_preset_config(model_config.preset or "", tokenizer))
        return MetaModel(model, device, _preset_dtype(model_config.dtype))
    dtype = _dtype_of(model_config, device, source)
    with _explained(source.directory, source.key):
        model = rehearse(source.directory, source.key, torch_dtype(dtype.value))
    _check_vocabulary(model, tokenizer)
    return MetaModel(model, device, dtype)


def load_model_directory(directory: Path, dtype: str, key: str) -> PreTrainedModel:
    """Load a causal language model from safetensors; nothing missing is made up.

    Raises
    ------
    ModelError
        If weights are absent, partial or damaged.
    """
    check_model_directory(directory, key)
    with _explained(directory, key):
        rehearse(directory, key)
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # nosec B615: a directory, no hub
            directory,
            dtype=torch_dtype(dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model: PreTrainedModel = loaded[0]
    _check_loading(directory, loaded[1], key)
    _check_numbers(model, directory, key)
    return model


@contextmanager
def _explained(directory: Path, key: str) -> Iterator[None]:
    """Turn whatever the libraries raise on files that make no model into one error."""
    try:
        yield
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # some of it bare exceptions
        if "not enough memory" in str(error):
            raise
        raise ModelError(
            f"{key}: the model in {directory} cannot be loaded",
            why=_reason(error),
            fix="copy the files again from their source; transformers must know the architecture (model_type)",
        ) from error


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, directory: Path) -> str:
    """Return one digest over the files that decide how text becomes ids, and the end-of-sequence id in use."""
    eos_token_id: Any = tokenizer.eos_token_id
    return tokenizer_files_digest(directory, eos_token_id)


def _dtype_of(model_config: ModelSection, device: Choice, source: Source) -> Choice:
    """Return the number format for weights that lie in a directory."""
    check_model_directory(source.directory, source.key)
    return choose_dtype(model_config.dtype, device.value, stored=stored_dtype(source.directory, source.key))


def _preset_dtype(model_config: str) -> Choice:
    if model_config == "bfloat16":
        raise ModelError(
            "model.dtype: bfloat16 was asked for, but a model from a preset is trained in float32",
            why="most of AdamW's small updates would be rounded away in bfloat16 weights",
            fix="use model.dtype=auto or model.dtype=float32",
        )
    return Choice("float32", "a model from a preset is trained in float32")


def _preset_config(name: str, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    token_ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return PRESETS.get(name).config(len(tokenizer), token_ids)


def _make_from_preset(name: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> tuple[PreTrainedModel, str]:
    config = _preset_config(name, tokenizer)
    # Weights are drawn on the CPU in float32: the same seed gives the same model on every device.
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    description = {"preset": name, "seed": seed, "config": config.to_dict()}
    return model, bytes_digest(json_bytes(description))


def _check_loading(directory: Path, loading: dict[str, Any], key: str) -> None:
    """Stop when weights and config.json disagree; transformers itself would fill in, or leave out, without a word."""
    missing = sorted(str(name) for name in loading.get("missing_keys", ()))
    mismatched = sorted(str(entry[0]) for entry in loading.get("mismatched_keys", ()))
    unexpected = sorted(str(name) for name in loading.get("unexpected_keys", ()) if not is_computed(str(name)))
    faults = [
        f"{len(names)} {fault} ({', '.join(names[:3])})"
        for names, fault in (
            (missing, "missing, which would be filled with random numbers"),
            (mismatched, "of another shape"),
            (unexpected, "unknown to the config, which would be left out"),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"{key}: the weights in {directory} are not those of its config.json",
            why=f"tensors: {'; '.join(faults)}",
            fix="copy all *.safetensors of the model, and its config.json, again",
        )


def _check_numbers(model: PreTrainedModel, directory: Path, key: str) -> None:
    """Stop at weights that are not numbers; every result of such a model is meaningless."""
    for name, parameter in model.named_parameters():
        if parameter.numel() == 0 or parameter.dtype not in FLOAT_FORMATS.values():
            continue
        # One pass without a copy; NaN spreads to both results.
        low, high = torch.aminmax(parameter.detach())
        if not (low.isfinite() and high.isfinite()):
            raise ModelError(
                f"{key}: {name} in the weights of {directory} holds values that are not finite",
                why="NaN or infinity in a weight makes every result meaningless",
                fix="copy all *.safetensors of the model again; with float16 weights, try model.dtype=float32",
            )


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    weight = model.get_input_embeddings().get_parameter("weight")
    rows = weight.shape[0]  # [vocabulary, hidden]
    # A post-processor can write ids that no vocabulary names; it adds the same ones to every text.
    tried = tokenizer.encode("a b")
    ids = [*tokenizer.get_vocab().values(), *tokenizer.all_special_ids, *tried]
    highest = max((token_id for token_id in ids if token_id is not None), default=-1)
    if highest >= rows:
        raise ModelError(
            f"model: the tokenizer has ids up to {highest}, the model only {rows} embedding rows",
            why="such an id would read beyond the embedding",
            fix="use the tokenizer that belongs to the model",
        )


def _keep_one_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep the chat template that is used and drop the others, so that no checkpoint holds a copy of them.

    Raises
    ------
    TypeError
        If it is not text.
    """
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is not None and not isinstance(template, str):
        raise TypeError(f"chat_template is {type(template).__name__}, and a text is needed")
    tokenizer.chat_template = template
    # `save_pretrained` writes this copy too.
    tokenizer.init_kwargs.pop("chat_template", None)


def _try_out(tokenizer: PreTrainedTokenizerBase) -> None:
    """Use a tokenizer as every job does, so that a fault of its files is found where it is loaded."""
    tokenizer.decode([*tokenizer.encode("a b"), *tokenizer.all_special_ids])
    # An unknown token replaces any text; if it is unknown itself, it is looked up endlessly.
    tokenizer.convert_tokens_to_ids(["a", "\0 no token"])
    tokenizer.get_vocab()


def _reason(error: BaseException) -> str:
    """Return the first line of an error, with the next one where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
