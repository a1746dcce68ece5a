"""What happens to a record that is longer than the model may see: an error, a drop, or a cut that is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from codex_ml.data.tokenization.tokenizer import TokenizedRecord

OverlongChoice = Literal["error", "drop", "truncate_prompt_left", "truncate_completion"]


def shorten(
    record: TokenizedRecord, max_length_tokens: int, choice: OverlongChoice, leading_tokens: int = 0
) -> TokenizedRecord | None:
    """Bring an over-long record to ``max_length_tokens``; None where it is to be dropped.

    ``truncate_prompt_left`` takes tokens from the start of the prompt, behind the ``leading_tokens`` (such as
    begin-of-sequence); a record whose prompt would vanish, and running text, which has none, is dropped.
    ``truncate_completion`` takes tokens from the end, so the end-of-sequence token goes too: a cut answer must not be
    learned as a finished one. A conversation whose last answer would vanish is dropped, whatever else of it is left: it
    could not be measured. What is left of any other may hold no supervised token; that is for the caller to see.

    Raises
    ------
    ValueError
        If the choice is ``error`` and the record is too long.
    """
    length = len(record.input_ids)
    excess = length - max_length_tokens
    if excess <= 0:
        return record
    if choice == "error":
        raise ValueError(f"the record has {length} tokens, more than data.max_length_tokens={max_length_tokens}")
    if choice == "drop":
        return None
    if choice == "truncate_completion":
        if record.prompt_length >= max_length_tokens and any(record.supervised[:max_length_tokens]):
            return None
        return replace(
            record,
            input_ids=record.input_ids[:max_length_tokens],
            supervised=record.supervised[:max_length_tokens],
            prompt_length=min(record.prompt_length, max_length_tokens),
        )
    if excess > record.prompt_length - max(leading_tokens, 1):
        return None
    behind = leading_tokens + excess
    mask = record.supervised[:leading_tokens] + record.supervised[behind:]
    return replace(
        record,
        input_ids=record.input_ids[:leading_tokens] + record.input_ids[behind:],
        # Where nothing leads, another token is now the first, and nothing predicts the first.
        supervised=(False, *mask[1:]),
        prompt_length=record.prompt_length - excess,
    )
