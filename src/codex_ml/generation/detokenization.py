"""Tokens made into text as they come: no half characters, and the same text as when all are decoded at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codex_ml.data import encoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a decoder writes for bytes that are no character, or not yet one.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return new tokens as text, without special tokens."""
    return encoding.decode(tokenizer, token_ids, skip_special_tokens=True)


class Detokenizer:
    """Gives the text that each further token adds.

    What a token spells may depend on the one before it (a space that only opens a text, bytes that make one character
    together), so tokens are decoded behind some that were already given out, and their text is taken off again. Text
    that ends within a character waits for the rest of it. Where bytes make no character at all, a decoder with byte
    fallback replaces the whole run of them when all are decoded at once; here those that had made one stay.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Decodes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        # Tokens from `_context` on are decoded; those before `_given` were given out.
        self._context = self._given = 0

    def feed(self, token_id: int) -> str:
        """Take the next token, and return the text that is certain now; often nothing."""
        self._token_ids.append(token_id)
        new = self._new_text()
        if not new or new.endswith(_REPLACEMENT):
            return ""
        self._context, self._given = self._given, len(self._token_ids)
        return new

    def close(self) -> str:
        """Return the rest: bytes that became no character are shown as such."""
        new = self._new_text()
        self._context = self._given = len(self._token_ids)
        return new

    def _new_text(self) -> str:
        before = decode(self._tokenizer, self._token_ids[self._context : self._given])
        return decode(self._tokenizer, self._token_ids[self._context :])[len(before) :]
