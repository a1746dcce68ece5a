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
from codex_ml.models.device import Choice, choose_device, choose_dtype, torch_dtype
from codex_ml.models.directory import (
    check_model_directory,
    check_tokenizer_directory,
    model_digest,
    tokenizer_files_digest,
)
from codex_ml.models.presets import PRESETS
from codex_ml.models.rehearsal import rehearse, stored_dtype
from codex_ml.models.source import Source, locate_model, locate_tokenizer
from codex_ml.storage import bytes_digest, file_digest, json_bytes

# Beside the weights in older files; computed from the config when a model is built.
_COMPUTED_BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias")


@dataclass(frozen=True)
class BaseModel:
    """A model on its device, with what was chosen, the digest of what was read, and where (None for a preset)."""

    model: PreTrainedModel
    device: Choice
    dtype: Choice
    digest: str
    source: Source | None = None


@dataclass(frozen=True)
class Shell:
    """A model whose parameters have shapes and types and no numbers, and what will be chosen when it is loaded."""

    model: PreTrainedModel
    device: Choice
    dtype: Choice


def load_tokenizer(wish: ModelSection) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the model of a config.

    Raises
    ------
    ModelError
        If it is absent, unreadable, or has no end-of-sequence token.
    """
    source = locate_tokenizer(wish)
    return load_tokenizer_directory(source.directory, source.key)


def load_tokenizer_directory(directory: Path, key: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a directory; see `load_tokenizer`."""
    check_tokenizer_directory(directory, key)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(  # nosec B615: a directory, no hub
            directory, local_files_only=True, trust_remote_code=False
        )
    except MemoryError:
        raise
    except Exception as error:  # the Rust side raises bare exceptions on files that make no tokenizer
        raise ModelError(
            f"{key}: the tokenizer in {directory} cannot be read",
            why=_first_line(error),
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
    wish: ModelSection,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    digest_of: Callable[[Path], str] = file_digest,
) -> BaseModel:
    """Load the model of a config from its directory or the local cache, or make it from its preset under the seed.

    Parameters
    ----------
    wish : ModelSection
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
    device = choose_device(wish.device)
    source = locate_model(wish)
    if source is not None:
        dtype = _dtype_of(wish, device, source)
        model = load_model_directory(source.directory, dtype.value, source.key)
        digest = model_digest(source.directory, digest_of)
    else:
        dtype = _preset_dtype(wish.dtype)
        model, digest = _make_from_preset(wish.preset or "", tokenizer, seed)
    _check_vocabulary(model, tokenizer)
    placed: PreTrainedModel = model.to(device.value)  # type: ignore[arg-type]
    return BaseModel(model=placed, device=device, dtype=dtype, digest=digest, source=source)


def build_shell(wish: ModelSection, tokenizer: PreTrainedTokenizerBase) -> Shell:
    """Build the model of a config on the meta device, after the checks that loading makes of its files.

    Parameters
    ----------
    wish : ModelSection
        What the config asks for.
    tokenizer : PreTrainedTokenizerBase
        Gives a preset its vocabulary.

    Raises
    ------
    ModelError
        If the files of the model are refused or make no model, or the device or dtype cannot be had.
    """
    device = choose_device(wish.device)
    source = locate_model(wish)
    if source is None:
        with torch.device("meta"):
            model: PreTrainedModel = LlamaForCausalLM(_preset_config(wish.preset or "", tokenizer))
        return Shell(model, device, _preset_dtype(wish.dtype))
    dtype = _dtype_of(wish, device, source)
    with _explained(source.directory, source.key):
        return Shell(rehearse(source.directory, source.key, torch_dtype(dtype.value)), device, dtype)


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
            why=_first_line(error),
            fix="copy the files again from their source; transformers must know the architecture (model_type)",
        ) from error


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase, directory: Path) -> str:
    """Return one digest over the files that decide how text becomes ids, and the end-of-sequence id in use."""
    eos_token_id: Any = tokenizer.eos_token_id
    return tokenizer_files_digest(directory, eos_token_id)


def _dtype_of(wish: ModelSection, device: Choice, source: Source) -> Choice:
    """Return the number format for weights that lie in a directory."""
    check_model_directory(source.directory, source.key)
    return choose_dtype(wish.dtype, device.value, stored=stored_dtype(source.directory, source.key))


def _preset_dtype(wish: str) -> Choice:
    if wish == "bfloat16":
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
    unexpected = sorted(str(name) for name in loading.get("unexpected_keys", ()) if not _is_harmless(str(name)))
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


def _is_harmless(name: str) -> bool:
    """Tell whether a tensor holds no weight: tables and masks that older versions of transformers wrote out."""
    return name.endswith(_COMPUTED_BUFFERS)


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    weight = model.get_input_embeddings().get_parameter("weight")
    rows = weight.shape[0]  # [vocabulary, hidden]
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise ModelError(
            f"model: the tokenizer has ids up to {highest}, the model only {rows} embedding rows",
            why="such an id would read beyond the embedding",
            fix="use the tokenizer that belongs to the model",
        )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
