"""Properties of tokenised records."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.records.formats import PromptCompletionRecord
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from codex_ml.data.tokenization.truncation import shorten
from tiers import examples

pieces = st.sampled_from(["cups ", "\n", "<|end|>", "<|role|>", " four", "é", "\u2028", "😀", "<|", "|>", "a"])
texts = st.lists(pieces, min_size=1, max_size=6).map("".join)


@examples(60)
@given(prompt=texts, completion=texts, limit=st.integers(2, 30), adds_begin=st.booleans())
def test_tokenize_any_pair_is_a_prefix_and_a_supervised_rest(
    make_tokenizer: Callable, prompt: str, completion: str, limit: int, adds_begin: bool
) -> None:
    """The prompt is a prefix by construction, the rest decodes to the completion, and cuts keep both aligned."""
    tokenizer = RecordTokenizer(make_tokenizer(adds_begin=adds_begin))
    source = PromptCompletionRecord(prompt=prompt, completion=completion)
    record = tokenizer.tokenize("d:1", source)
    assert record.prompt_ids == tokenizer.encode_prompt(source)
    assert tokenizer.decode(record.prompt_ids[int(adds_begin) :]) == prompt
    assert tokenizer.decode(record.input_ids[record.prompt_length :]) == completion + "<|end|>"
    leading = tokenizer.leading_tokens(record)
    for choice in ("truncate_prompt_left", "truncate_completion"):
        short = shorten(record, limit, choice, leading)
        if short is None:
            continue
        assert len(short.input_ids) == len(short.supervised) == min(limit, len(record.input_ids))
        assert not short.supervised[0]
        if choice == "truncate_prompt_left":
            assert short.prompt_length >= 1
            assert short.input_ids[short.prompt_length :] == record.input_ids[record.prompt_length :]
            assert short.input_ids[:leading] == record.input_ids[:leading]
