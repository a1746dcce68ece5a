"""Where the model and the tokenizer of a config lie: the directory it names, or a snapshot in the local cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codex_ml.config.schema.model import ModelSection
from codex_ml.errors import ModelError
from codex_ml.models.directory import check_model_directory, check_tokenizer_directory
from codex_ml.models.hub_cache import find_snapshot


@dataclass(frozen=True)
class Source:
    """A directory, the key of the config that led to it, and what it is called.

    Attributes
    ----------
    name : str
        Name on the hub, or of the directory.
    revision : str, optional
        Commit of the snapshot; None for a directory.
    """

    directory: Path
    key: str
    name: str
    revision: str | None = None


def locate_model(model_config: ModelSection, environment: Mapping[str, str] | None = None) -> Source | None:
    """Return where the weights of a config lie; None for a preset, which has none.

    Raises
    ------
    ModelError
        If the model is named and not in the cache.
    """
    if model_config.path is not None:
        return Source(model_config.path, "model.path", model_config.path.name)
    if model_config.name is not None:
        snapshot = find_snapshot(model_config.name, model_config.revision, environment)
        return Source(snapshot.directory, "model.name", snapshot.name, snapshot.commit)
    return None


def locate_tokenizer(model_config: ModelSection, environment: Mapping[str, str] | None = None) -> Source:
    """Return where the tokenizer of a config lies: beside its weights, or where a preset names it.

    Raises
    ------
    ModelError
        If there is none.
    """
    source = locate_model(model_config, environment)
    if source is not None:
        return source
    if model_config.tokenizer is None:
        raise ModelError("model.tokenizer: not set", fix="name a tokenizer directory: model.tokenizer=DIR")
    return Source(model_config.tokenizer, "model.tokenizer", model_config.tokenizer.name)


def check_source(model_config: ModelSection, environment: Mapping[str, str] | None = None) -> None:
    """Check that the model and the tokenizer of a config are on this machine, without importing anything heavy.

    Loading checks the same; called first, this saves the user the seconds that importing torch takes.

    Raises
    ------
    ModelError
        If one is not there, or a part of it is missing.
    """
    source = locate_model(model_config, environment)
    if source is not None:
        check_model_directory(source.directory, source.key)
    else:
        tokenizer = locate_tokenizer(model_config, environment)
        check_tokenizer_directory(tokenizer.directory, tokenizer.key)
