"""Records longer than the model may see."""

from __future__ import annotations

import pytest

from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.data.tokenization.truncation import shorten

RECORD = TokenizedRecord("d:1", (9, 1, 2, 3, 4, 5, 6, 7), (False,) * 5 + (True,) * 3, 5, "p", "c")


def test_shorten_record_that_fits_is_left_alone() -> None:
    """Exactly the limit is not over it."""
    for choice in ("error", "drop", "truncate_prompt_left", "truncate_completion"):
        assert shorten(RECORD, 8, choice) is RECORD


def test_shorten_error_names_both_lengths() -> None:
    """The default stops and says by how much."""
    with pytest.raises(ValueError, match=r"8 tokens, more than data\.max_length_tokens=7"):
        shorten(RECORD, 7, "error")


def test_shorten_drop_gives_nothing() -> None:
    """Dropping is dropping."""
    assert shorten(RECORD, 7, "drop") is None


def test_shorten_prompt_left_keeps_what_leads_and_the_whole_completion() -> None:
    """Begin-of-sequence stays in front, the oldest text goes, the completion is whole."""
    short = shorten(RECORD, 6, "truncate_prompt_left", leading_tokens=1)
    assert short is not None
    assert short.input_ids == (9, 3, 4, 5, 6, 7)
    assert short.supervised == (False, False, False, True, True, True)
    assert short.prompt_ids == (9, 3, 4)


def test_shorten_prompt_left_without_enough_prompt_drops() -> None:
    """At least one token of the prompt must be left to generate from."""
    assert shorten(RECORD, 4, "truncate_prompt_left", leading_tokens=1) is not None
    assert shorten(RECORD, 4, "truncate_prompt_left") is not None
    assert shorten(RECORD, 3, "truncate_prompt_left", leading_tokens=1) is None
    assert shorten(RECORD, 3, "truncate_prompt_left") is None


def test_shorten_completion_loses_its_end() -> None:
    """A cut answer is not taught as a finished one; where nothing of it is left, the mask says so."""
    short = shorten(RECORD, 6, "truncate_completion")
    assert short is not None
    assert short.input_ids == RECORD.input_ids[:6]
    assert short.supervised_count == 1
    shorter = shorten(RECORD, 4, "truncate_completion")
    assert shorter is not None
    assert (shorter.supervised_count, shorter.prompt_length) == (0, 4)


def test_shorten_completion_conversation_without_its_last_answer_is_dropped() -> None:
    """Earlier answers that are learned do not make up for it: what is left is no prompt and no answer to it."""
    mask = (False, False, True, True, False, False, True, True)
    chat = TokenizedRecord("d:1", tuple(range(8)), mask, 6, "p", "c")
    assert shorten(chat, 6, "truncate_completion") is None
    assert shorten(chat, 5, "truncate_completion") is None
    short = shorten(chat, 7, "truncate_completion")
    assert short is not None
    assert (short.supervised_count, short.prompt_length) == (3, 6)
