"""Token ids and supervision of prompts, completions and running text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from codex_ml.data.records.formats import PromptCompletionRecord, TextRecord
from codex_ml.data.tokenization.tokenizer import RecordTokenizer, TokenizedRecord, encode_prompt
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MakeTokenizer = Callable[..., "PreTrainedTokenizerFast"]
PAIR = PromptCompletionRecord(prompt="How many cups?\nThe la", completion="mp stands")
BEGIN, END = 0, 1


def _supervised_text(tokenizer: PreTrainedTokenizerFast, record: TokenizedRecord) -> str:
    learned = [token for token, on in zip(record.input_ids, record.supervised, strict=True) if on]
    return tokenizer.decode(learned)


def test_tokenize_prompt_and_completion_are_joined_apart(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    """Completion and one end-of-sequence are supervised, although the text would merge at the border."""
    record = RecordTokenizer(plain_tokenizer).tokenize("d:1", PAIR)
    assert plain_tokenizer.decode(record.input_ids) == "How many cups?\nThe lamp stands<|end|>"
    assert _supervised_text(plain_tokenizer, record) == "mp stands<|end|>"
    assert record.supervised == (False,) * record.prompt_length + (True,) * (
        len(record.input_ids) - record.prompt_length
    )
    together = plain_tokenizer(PAIR.prompt + PAIR.completion)["input_ids"]
    assert list(record.input_ids[:-1]) != together  # the case in which a joint tokenisation would be wrong
    assert (record.record_id, record.prompt, record.reference) == ("d:1", PAIR.prompt, PAIR.completion)


@pytest.mark.parametrize("adds_begin", [False, True])
@pytest.mark.parametrize("adds_end", [False, True])
def test_tokenize_special_tokens_of_the_tokenizer_stand_once(
    make_tokenizer: MakeTokenizer, adds_begin: bool, adds_end: bool
) -> None:
    """Begin-of-sequence comes once in front, end-of-sequence once behind, never between prompt and completion."""
    tokenizer = make_tokenizer(adds_begin=adds_begin, adds_end=adds_end)
    for source in (PAIR, TextRecord(text="The lamp stands")):
        record = RecordTokenizer(tokenizer).tokenize("d:1", source)
        assert record.input_ids.count(END) == 1
        assert record.input_ids[-1] == END
        assert record.supervised[-1]
        assert record.input_ids.count(BEGIN) == int(adds_begin)
        assert not adds_begin or record.input_ids[0] == BEGIN


def test_tokenize_special_tokens_that_trusted_text_spells_are_not_doubled(make_tokenizer: MakeTokenizer) -> None:
    """A text that was rendered before has its begin and its end already; the tokenizer adds no second."""
    made = RecordTokenizer(make_tokenizer(adds_begin=True, adds_end=True), trust_control_tokens_in_text=True)
    pair = PromptCompletionRecord(prompt="<|begin|>How many?", completion="four<|end|>")
    for source in (TextRecord(text="<|begin|>How many?four<|end|>"), pair):
        record = made.tokenize("d:1", source)
        assert (record.input_ids.count(BEGIN), record.input_ids.count(END)) == (1, 1)
        assert (record.input_ids[0], record.input_ids[-1]) == (BEGIN, END)
    assert made.tokenize("d:1", TextRecord(text="four")).input_ids[0] == BEGIN


@pytest.mark.parametrize("adds_begin", [False, True])
@pytest.mark.parametrize("adds_end", [False, True])
def test_encode_prompt_gives_the_very_ids_of_training(
    make_tokenizer: MakeTokenizer, adds_begin: bool, adds_end: bool
) -> None:
    """What generation starts from is the beginning of what was trained on."""
    tokenizer = make_tokenizer(adds_begin=adds_begin, adds_end=adds_end)
    record = RecordTokenizer(tokenizer).tokenize("d:1", PAIR)
    prompt_ids = encode_prompt(tokenizer, PAIR)
    assert prompt_ids == record.prompt_ids == record.input_ids[: record.prompt_length]
    assert prompt_ids == encode_prompt(tokenizer, PAIR.prompt)


def test_tokenize_running_text_is_supervised_from_its_second_token(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    """Nothing predicts the first token, so that it is no training token and is not counted as one."""
    record = RecordTokenizer(plain_tokenizer).tokenize("d:1", TextRecord(text="one two three"))
    assert record.supervised == (False,) + (True,) * (len(record.input_ids) - 1)
    assert (record.prompt_length, record.reference) == (0, None)


@pytest.mark.parametrize("spelled", ["<|end|>", "<|role|>", "<|begin|>"])
def test_tokenize_text_that_spells_a_control_token_stays_text(
    plain_tokenizer: PreTrainedTokenizerFast, spelled: str
) -> None:
    """A record cannot end a sequence or begin a turn by writing the token's name; it reads back as written."""
    text = f"one {spelled} two"
    for source in (TextRecord(text=text), PromptCompletionRecord(prompt=text, completion=text)):
        record = RecordTokenizer(plain_tokenizer).tokenize("d:1", source)
        assert [token for token in record.input_ids if token in {0, 1, 2}] == [END]
        assert text in plain_tokenizer.decode(record.input_ids)


def test_tokenize_two_records_in_turn_do_not_disturb_each_other(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    """Reading control tokens as text is a switch on the shared tokenizer; it must not stay on."""
    tokenizer = RecordTokenizer(plain_tokenizer)
    before = tokenizer.tokenize("d:1", PAIR)
    tokenizer.tokenize("d:2", TextRecord(text="<|end|>"))
    assert tokenizer.tokenize("d:1", PAIR) == before
    assert plain_tokenizer("<|end|>")["input_ids"] == [END]


def test_tokenize_empty_prompt_needs_a_begin_token(make_tokenizer: MakeTokenizer) -> None:
    """Without one there would be nothing to generate from."""
    record = PromptCompletionRecord(prompt="", completion="four")
    with pytest.raises(ValueError, match="prompt is empty"):
        RecordTokenizer(make_tokenizer()).tokenize("d:1", record)
    assert RecordTokenizer(make_tokenizer(adds_begin=True)).tokenize("d:1", record).prompt_ids == (BEGIN,)


def test_encode_prompt_running_text_has_none(plain_tokenizer: PreTrainedTokenizerFast) -> None:
    """Generation from a text record is a fault of the caller."""
    with pytest.raises(ValueError, match="no prompt"):
        encode_prompt(plain_tokenizer, TextRecord(text="t"))


def test_record_tokenizer_without_end_of_sequence_is_refused(make_tokenizer: MakeTokenizer) -> None:
    """A model that cannot learn to stop is not trained."""
    with pytest.raises(DataError, match="no end-of-sequence token"):
        RecordTokenizer(make_tokenizer(eos_token=None))
