"""For every shape of records and every family of templates: tokens add up, and a prompt is the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chat_families import FAMILIES, WEATHER
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.config.schema.data import DataSection
from codex_ml.data.dataset import build_dataset
from codex_ml.data.records.formats import to_record
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from tiers import examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

pieces = st.sampled_from(["cups ", "\n", "</s>", "<|im_end|>", " four", "e\u0301", "\u2028", "😀", "[INST]", "|>", "a"])
said = st.lists(pieces, min_size=1, max_size=6).map("".join)
answers = said.map(lambda text: f"x{text}")  # an answer of blanks alone is none


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw user and assistant in turns; the last is an answer to learn, without which a file could teach nothing."""
    turns: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "content": draw(answers)})
        turns.append({"role": "assistant", "content": draw(answers), "weight": draw(st.sampled_from([0, 1, None]))})
    turns[-1]["weight"] = draw(st.sampled_from([1, None]))
    return turns


def _lines(shape: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    if shape == "prompt_completion":
        return {"prompt": draw(answers), "completion": draw(answers)}
    if shape == "text":
        return {"text": draw(answers)}
    if shape == "instruction":
        return {"instruction": draw(answers), "input": draw(said), "output": draw(answers)}
    turns = draw(conversations())
    if shape == "pair_of_turns":
        return {"prompt": turns[:-1], "completion": turns[-1:]}
    if shape == "conversations":
        return {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in turns]}
    if shape == "calls":
        call = {"function": {"name": "weather", "arguments": {draw(answers): draw(answers)}}, "id": "abcdefghi"}
        last = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"messages": [*turns[:-1], last], "tools": [WEATHER]}
    return {"messages": turns}


@examples(15)
@pytest.mark.parametrize(
    "shape", ["prompt_completion", "text", "instruction", "messages", "conversations", "pair_of_turns", "calls"]
)
@given(data=st.data())
def test_build_dataset_tokens_of_any_shape_add_up(
    make_family: Callable[[str], PreTrainedTokenizerFast],
    word_filter: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
    shape: str,
    data: st.DataObject,
) -> None:
    """Tokenised = supervised + masked + truncated + in dropped records, whatever is cut, and nothing kept is empty."""
    lines = [_lines(shape, data.draw) for _ in range(data.draw(st.integers(1, 4)))]
    path: Path = tmp_path_factory.mktemp("shapes") / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    limit = data.draw(st.integers(2, 400))
    section = DataSection(
        train=path,
        max_length_tokens=limit,
        max_bad_share=1.0,
        on_overlong=data.draw(st.sampled_from(["drop", "truncate_prompt_left"])),
        supervise=data.draw(st.sampled_from(["all_assistant_turns", "last_assistant_turn"])),
    )
    tokenizer = make_family("chatml")
    built = build_dataset(section, tokenizer, word_filter, lambda *_found: None)
    account = built.account.splits["train"]
    plain = RecordTokenizer(tokenizer, section.supervise)
    whole = [plain.tokenize("d:1", to_record(line, _format_of(shape))) for line in lines]
    assert account.records_read == len(lines) == account.records_kept + account.records_dropped
    assert account.tokens_tokenised == sum(len(record.input_ids) for record in whole)
    parts = (account.tokens_supervised, account.tokens_masked, account.tokens_truncated, account.tokens_in_dropped)
    assert account.tokens_tokenised == sum(parts)
    kept = built.splits["train"]
    assert sum(record.supervised_count for record in kept) == account.tokens_supervised
    for record in kept:
        assert record.supervised_count > 0
        assert len(record.input_ids) == len(record.supervised) <= limit
        assert any(record.supervised[record.prompt_length :])


def _format_of(shape: str) -> Any:
    return {"pair_of_turns": "prompt_completion", "calls": "messages"}.get(shape, shape)


@examples(10)
@pytest.mark.parametrize("name", FAMILIES)
@given(turns=conversations(), supervise=st.sampled_from(["all_assistant_turns", "last_assistant_turn"]))
def test_encode_prompt_of_any_conversation_is_the_prompt_of_training(
    make_family: Callable[[str], PreTrainedTokenizerFast], name: str, turns: list[dict[str, Any]], supervise: Any
) -> None:
    """Whatever is said, control tokens spelled included: one prompt, and the mask only where the assistant speaks."""
    made = RecordTokenizer(make_family(name), supervise)
    record = to_record({"messages": turns}, "messages")
    tokenized = made.tokenize("d:1", record)
    waiting = to_record({"messages": turns[:-1]}, "messages")
    assert made.encode_prompt(waiting) == made.encode_prompt(record) == tokenized.prompt_ids
    assert any(tokenized.supervised[tokenized.prompt_length :])
    earlier = [turn for turn in turns[:-1] if turn["role"] == "assistant" and turn["weight"] != 0]
    in_prompt = any(tokenized.supervised[: tokenized.prompt_length])
    assert in_prompt == (bool(earlier) and supervise == "all_assistant_turns")
