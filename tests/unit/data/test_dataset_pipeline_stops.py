"""Records that are dropped, truncated or blocked before tokenization, and data that stops the build."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from dataset_builder import Build, Filter, Write, numbered_pairs

from codex_ml.errors import DataError, SafetyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@pytest.mark.parametrize("bad", ["end", "dropped"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_build_dataset_sound_split_hides_no_bad_one(build: Build, write_jsonl: Write, split: str, bad: str) -> None:
    """Each split is checked by itself, whatever the size and quality of the other."""
    other = {"train": "valid", "valid": "train"}[split]
    if bad == "end":
        pairs = [{"prompt": "a ", "completion": f"b{number} " * 50} for number in range(5)]
        reason = f"in the split '{split}' the end-of-sequence token is never supervised"
    else:
        pairs = [*numbered_pairs(5, "two"), *({"prompt": f"x{number}", "completion": "DROPME"} for number in range(5))]
        reason = f"5 of 10 records of the split '{split}' were dropped"
    files = {split: write_jsonl(pairs, "a.jsonl"), other: write_jsonl(numbered_pairs(200), "b.jsonl")}
    with pytest.raises(DataError, match=reason):
        build(**files, max_length_tokens=50, on_overlong="truncate_completion")


def test_build_dataset_dropped_record_is_counted_and_leaves_nothing(build: Build, write_jsonl: Write) -> None:
    """A record that the policy drops is not tokenised."""
    path = write_jsonl([*numbered_pairs(30), {"prompt": "x", "completion": "DROPME"}])
    dataset = build(train=path)
    assert len(dataset.splits["train"]) == 30
    assert dataset.account.splits["train"].dropped == {"safety_drop": 1}
    assert build.findings == [("data.jsonl:31", "completion@0", "drop")]


def test_build_dataset_blocked_record_stops_with_line_and_rule(build: Build, write_jsonl: Write) -> None:
    """The error names the line and the rule, and shows no text."""
    path = write_jsonl([*numbered_pairs(2), {"prompt": "BLOCKME secret", "completion": "x"}])
    with pytest.raises(SafetyError, match=r"data\.jsonl:3: the safety policy blocks prompt \(rule block\)") as caught:
        build(train=path)
    assert "secret" not in caught.value.block()


def test_build_dataset_faulty_lines_are_named_all_at_once(build: Build, write_jsonl: Write) -> None:
    """One error reports broken JSON, a missing key and an empty completion."""
    lines = [json.dumps(pair).encode() for pair in numbered_pairs(7)]
    lines[2] = b'{"prompt": "x", "completion": "  "}'
    lines[4] = b'{"prompt": "x"}'
    lines[6] = lines[6][:-3]
    with pytest.raises(DataError) as caught:
        build(train=write_jsonl(b"\n".join(lines)))
    block = caught.value.block()
    assert "data.jsonl:3: completion holds nothing but white space" in block
    assert "data.jsonl:5: key 'completion' is missing (format prompt_completion)" in block
    assert "data.jsonl:7: not valid JSON" in block


def test_build_dataset_overlong_records_stop_by_default(build: Build, write_jsonl: Write) -> None:
    """Truncation is off by default; the error names every overlong record with its length."""
    path = write_jsonl(
        [*numbered_pairs(3), {"prompt": "a " * 40, "completion": "b"}, {"prompt": "b " * 50, "completion": "b"}]
    )
    with pytest.raises(DataError) as caught:
        build(train=path, max_length_tokens=40)
    block = caught.value.block()
    assert "data.jsonl:4: the record has 82 tokens, more than data.max_length_tokens=40" in block
    assert "data.jsonl:5: the record has 102 tokens" in block
    assert "data.on_overlong" in block


def test_build_dataset_empty_and_overlong_records_get_their_own_advice(build: Build, write_jsonl: Write) -> None:
    """The fix covers both kinds: correct the empty prompt, and raise the limit for the overlong record."""
    path = write_jsonl(
        [{"prompt": "", "completion": "b"}, *numbered_pairs(3), {"prompt": "b " * 50, "completion": "b"}]
    )
    with pytest.raises(DataError) as caught:
        build(train=path, max_length_tokens=40)
    assert "data.jsonl:1: prompt is empty" in caught.value.what
    assert caught.value.fix.startswith("correct these records or leave them out")
    assert "data.max_length_tokens" in caught.value.fix.splitlines()[1]


@pytest.mark.parametrize(
    ("choice", "kept", "dropped"),
    [
        ("drop", 0, {"overlong": 1}),
        ("truncate_prompt_left", 1, {}),
        ("truncate_completion", 0, {"no_supervised_tokens": 1}),
    ],
)
def test_build_dataset_overlong_choices_are_accounted_for(
    build: Build, write_jsonl: Write, choice: str, kept: int, dropped: Mapping[str, int]
) -> None:
    """The account counts what is truncated or dropped, and a record without a supervised token is never kept."""
    path = write_jsonl([{"prompt": "a " * 40, "completion": "b"}, *numbered_pairs(30)])
    dataset = build(train=path, max_length_tokens=40, on_overlong=choice)
    account = dataset.account.splits["train"]
    assert account.records_kept == 30 + kept
    assert account.dropped == dropped
    assert account.tokens_truncated == 42 * kept
    assert account.tokens_in_dropped == 82 * (1 - kept)
    assert account.records_truncated == kept
    assert all(record.supervised_count for record in dataset.splits["train"])


def test_build_dataset_too_many_dropped_records_stop(build: Build, write_jsonl: Write) -> None:
    """The share covers all reasons; a share equal to the limit passes."""
    path = write_jsonl(
        [*numbered_pairs(18), {"prompt": "x", "completion": "DROPME"}, {"prompt": "a " * 90, "completion": "b"}]
    )
    section = {"train": path, "max_length_tokens": 60, "on_overlong": "drop"}
    with pytest.raises(DataError, match=r"2 of 20 records of the split 'train' were dropped \(10\.0%\)") as caught:
        build(**section)
    assert "overlong 1, safety_drop 1" in caught.value.why
    assert len(build(**section, max_bad_share=0.1).splits["train"]) == 18


def test_build_dataset_no_supervised_token_stops_with_an_example(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """Conversations without an assistant turn have no supervised token; the policy filters the shown example."""
    build = Build(make_tokenizer(chat_template=chat_templates["plain"]), word_filter)
    path = write_jsonl([{"messages": [{"role": "user", "content": "hello REDACTME"}]}] * 5)
    with pytest.raises(DataError, match="no token of the split 'train' is supervised") as caught:
        build(train=path, max_bad_share=1.0)
    assert "data.jsonl:1" in caught.value.why
    assert "hello [redact]<|end|>" in caught.value.why


def test_build_dataset_end_never_supervised_stops_with_an_example(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """With a chat template that never ends a turn, the model never learns to stop."""
    build = Build(make_tokenizer(chat_template=chat_templates["no_end"]), word_filter)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "four REDACTME"}]
    with pytest.raises(DataError, match="end-of-sequence token is never supervised") as caught:
        build(train=write_jsonl([{"messages": chat}] * 5))
    assert "⟦four [redact]⟧" in caught.value.why
    assert "{% generation %}" in caught.value.fix


def test_build_dataset_end_cut_off_everywhere_stops(build: Build, write_jsonl: Write) -> None:
    """Truncating every completion removes every end-of-sequence token; plain text records are exempt."""
    pairs = [{"prompt": "a ", "completion": "b " * 50}] * 5
    with pytest.raises(DataError, match="end-of-sequence token is never supervised"):
        build(train=write_jsonl(pairs), max_length_tokens=20, on_overlong="truncate_completion")
    texts = write_jsonl([{"text": "b " * 50}] * 5)
    assert len(build(train=texts, max_length_tokens=20, on_overlong="truncate_completion").splits["train"]) == 5


def test_build_dataset_hard_stop_withholds_what_the_policy_refuses(
    plain_tokenizer: PreTrainedTokenizerFast, word_filter: Filter, write_jsonl: Write
) -> None:
    """An example that the policy refuses only as a whole is not shown."""

    def refuse_marks(text: str) -> Any:
        return word_filter("BLOCKME" if "⟦" in text else text)

    pairs = [{"prompt": "a ", "completion": "b " * 50}] * 5
    with pytest.raises(DataError, match="never supervised") as caught:
        Build(plain_tokenizer, refuse_marks)(
            train=write_jsonl(pairs), max_length_tokens=20, on_overlong="truncate_completion"
        )
    assert "not shown" in caught.value.why


def test_build_dataset_group_key_missing_is_named(build: Build, write_jsonl: Write) -> None:
    """A record without its group has no defined split."""
    path = write_jsonl([{"prompt": "a", "completion": "b", "g": 1}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"data\.jsonl:2: the group key 'g'"):
        build(path=path, split={"group_by": "g"})


def test_build_dataset_without_a_file_is_an_error(build: Build) -> None:
    """At least one file must be given."""
    with pytest.raises(DataError, match="no file is named"):
        build()


def test_build_dataset_unknown_shape_stops_at_its_first_line(build: Build, write_jsonl: Write) -> None:
    """An unknown format gives one message, not one per line."""
    with pytest.raises(DataError, match=r"data\.jsonl:1: the line has 'a', which is no format known here") as caught:
        build(train=write_jsonl([{"a": 1}] * 5))
    assert "problems" not in caught.value.block()
