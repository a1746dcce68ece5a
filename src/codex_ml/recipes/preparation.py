"""What training and evaluation prepare alike: filters, tokenizer and the records behind both."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from codex_ml.config.schema.root import RunConfig
from codex_ml.data.dataset import Dataset, build_dataset
from codex_ml.data.split_utils import SPLIT_NAMES
from codex_ml.data.storage.cache import TOKEN_CACHE_NAME, TokenCache
from codex_ml.data.storage.cached_dataset import CacheUse
from codex_ml.io.atomic import Storage
from codex_ml.models.directory import extra_tokenizer_digest
from codex_ml.models.registry import load_tokenizer, tokenizer_digest
from codex_ml.models.source import locate_tokenizer
from codex_ml.recipes.inputs import BypassRecorder, ReadingProgress, bypass_warnings, open_filters
from codex_ml.runs.digest_cache import CACHE_NAME, DigestCache
from codex_ml.safety.filters import Bypass, SafetyAudit, SafetyFilters


@dataclass(frozen=True)
class Prepared:
    """Records behind the safety filters, and what they were made with.

    `audit_events` wait until there is a run directory to write them to: data that cannot be used leaves none behind.
    """

    filters: SafetyFilters
    tokenizer: PreTrainedTokenizerBase
    tokenizer_digest: str
    extra_tokenizer_digest: str
    dataset: Dataset
    findings: dict[str, int] = field(default_factory=dict)
    audit_events: list[dict[str, Any]] = field(default_factory=list)
    bypass: Bypass | None = None

    @property
    def pad_token_id(self) -> int:
        """The id that fills short rows; it is masked by position."""
        pad_token_id = self.tokenizer.pad_token_id
        assert isinstance(pad_token_id, int), "loading gives every tokenizer a pad token"
        return pad_token_id


def prepare(
    config: RunConfig,
    emit: Callable[[str], None],
    splits: Collection[str] = SPLIT_NAMES,
    storage: Storage | None = None,
    *,
    bypass_recorder: BypassRecorder,
) -> Prepared:
    """Load the tokenizer, read every record of some splits through the filters and tokenise it.

    Parameters
    ----------
    config : RunConfig
        What the run is.
    emit : callable
        Takes what the user is to be told, a line at a time.
    splits : collection of str
        The splits that are wanted.
    storage : Storage, optional
        The disk on which the cache of tokenised data may be written; without one it is only read.
    bypass_recorder : Witness
        Notes who turned the filters off, where they are off.

    Raises
    ------
    ModelError, SafetyError, DataError
        If any of it cannot be had; nothing has been written then.
    """
    filters = open_filters(config.safety)
    for line in bypass_warnings(filters):
        emit(line)
    tokenizer = load_tokenizer(config.model)
    events: list[dict[str, Any]] = []
    audit = SafetyAudit(events.append, stage="data")
    bypass = bypass_recorder.bypass(filters)
    if bypass is not None:
        audit.bypass(bypass)
    directory = locate_tokenizer(config.model).directory
    digests = tokenizer_digest(tokenizer, directory), extra_tokenizer_digest(directory)
    cache_use = _cache_use(config, filters, tokenizer, digests, emit, storage)
    dataset = build_dataset(
        config.data, tokenizer, filters.apply, audit.record, splits, cache_use, ReadingProgress(emit)
    )
    return Prepared(
        filters=filters,
        tokenizer=tokenizer,
        tokenizer_digest=digests[0],
        extra_tokenizer_digest=digests[1],
        dataset=dataset,
        findings=dict(audit.counts),
        audit_events=events,
        bypass=bypass,
    )


def _cache_use(
    config: RunConfig,
    filters: SafetyFilters,
    tokenizer: PreTrainedTokenizerBase,
    digests: tuple[str, str],
    emit: Callable[[str], None],
    storage: Storage | None,
) -> CacheUse | None:
    """Return the cache of tokenised data of a config, and what besides its data section decides about the entries."""
    if config.data.cache_dir is None:
        return None
    if config.safety.pseudonyms:
        # Numbers are given as values are met; those of another process would not be those of this one's logs.
        emit("tokenised data are not cached: safety.pseudonyms numbers values as they are read")
        return None
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    directory = config.run.output_dir / TOKEN_CACHE_NAME if config.data.cache_dir == "auto" else config.data.cache_dir
    made_by = {
        "tokenizer": digests[0],
        "tokenizer_extra": digests[1],
        "tokenizer_class": type(tokenizer).__name__,
        "chat_template": repr(tokenizer.chat_template),
        "safety_policy": filters.policy.digest,
        "safety_enabled": not filters.bypassed,
    }
    return CacheUse(TokenCache(Path(directory), storage), made_by, storage is not None, emit)


def open_digests(config: RunConfig) -> DigestCache:
    """Open the digests of base weights that are kept where the runs of a config lie; nothing is written by that."""
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    return DigestCache(config.run.output_dir / CACHE_NAME)
