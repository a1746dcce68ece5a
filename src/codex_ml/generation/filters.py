"""Safety filters on prompts and on generated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from codex_ml.data.tokenization.encoding import decode, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FilteredText(Protocol):
    """The answer of a filter about one text."""

    @property
    def text(self) -> str:
        """The text as it may be used; only meaningful for the actions ``keep`` and ``redact``."""
        ...

    @property
    def findings(self) -> Sequence[Any]:
        """What was found: rule ids and offsets, never content."""
        ...

    @property
    def action(self) -> str:
        """``keep``, ``redact``, ``drop`` or ``block``."""
        ...


TextFilter = Callable[[str], FilteredText]


class OutputStream(Protocol):
    """A filter for a text that comes in pieces."""

    @property
    def action(self) -> str:
        """The severest action so far; what is neither ``keep`` nor ``redact`` ends the text."""
        ...

    def feed(self, piece: str) -> str:
        """Take the next piece, and return what may be shown now."""
        ...

    def close(self) -> str:
        """Return what may be shown of the rest."""
        ...

    def take_findings(self) -> Sequence[Any]:
        """Return what was found since this was last asked."""
        ...


def allowed_text(filtered: FilteredText) -> str | None:
    """Return the text that may be used, or None when the policy lets none of it through.

    Fails closed: an action this code does not know lets nothing through.
    """
    return filtered.text if filtered.action in ("keep", "redact") else None


@dataclass(frozen=True)
class FilteredPrompt:
    """The tokens that may go into the model, or None when the prompt is blocked, and what was found.

    Offsets of the findings are those in the prompt decoded with its special tokens. ``redacted`` says whether the
    policy changed the prompt or took it away.
    """

    token_ids: tuple[int, ...] | None
    findings: tuple[Any, ...] = ()
    redacted: bool = False


# Makes ids of ordinary text, none of them a special token; raises `ValueError` where it cannot.
EncodeText = Callable[[str], Sequence[int]]


def filter_prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    filter_text: TextFilter,
    encode_text: EncodeText | None = None,
) -> FilteredPrompt:
    """Apply the policy to the text of a prompt; special tokens stay what they are, and no text becomes one.

    The text as a whole decides whether the prompt is kept, redacted or blocked. To redact, the ordinary text between
    special tokens is filtered piece by piece and encoded again without reading special tokens out of it, so that a
    user who spells ``<|end|>`` does not get one. What is then still not clean (a pattern across a special token), or
    cannot be encoded that way, is blocked.
    """
    text = decode(tokenizer, token_ids)
    filtered = filter_text(text)
    findings = tuple(filtered.findings)
    allowed = allowed_text(filtered)
    if allowed is None:
        return FilteredPrompt(None, findings, redacted=True)
    if allowed == text:
        return FilteredPrompt(tuple(token_ids), findings)
    special = _special_ids(tokenizer)
    encode_text = encode_text or (lambda text: encode(tokenizer, text, split_special_tokens=True))
    redacted: list[int] = []
    for is_special, run in groupby(token_ids, key=special.__contains__):
        pieces = list(run)
        safe = pieces if is_special else _redact_run(tokenizer, pieces, filter_text, special, encode_text)
        if safe is None:
            return FilteredPrompt(None, findings, redacted=True)
        redacted += safe
    result = decode(tokenizer, redacted)
    clean = allowed_text(filter_text(result)) == result
    return FilteredPrompt(tuple(redacted) if clean else None, findings, redacted=True)


def _redact_run(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    filter_text: TextFilter,
    special: frozenset[int],
    encode_text: EncodeText,
) -> list[int] | None:
    """Return a run of ordinary tokens after the policy, or None when it cannot be had without special tokens."""
    text = decode(tokenizer, token_ids)
    safe = allowed_text(filter_text(text))
    if safe is None:
        return None
    if safe == text:
        return token_ids
    try:
        encoded = list(encode_text(safe))
    except ValueError:
        return None
    return encoded if special.isdisjoint(encoded) else None


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))
