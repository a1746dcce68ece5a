"""Chat templates in the style of real families: what they render, what is learned of it, and what generation sees."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from chat_families import FAMILIES, FIRST, SECOND, SYSTEM, TOOL_TURNS, WEATHER, Family

from codex_ml.data.records.chat import MessagesRecord
from codex_ml.data.records.formats import to_record
from codex_ml.data.tokenization.tokenizer import RecordTokenizer, TokenizedRecord, answer_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MakeFamily = Callable[[str], "PreTrainedTokenizerFast"]
WITH_TOOLS = [name for name, family in FAMILIES.items() if family.tools is not None]


def _chat(family: Family) -> dict[str, Any]:
    return {"messages": [*([SYSTEM] if family.has_system else []), *FIRST, *SECOND]}


def _record(line: dict[str, Any]) -> MessagesRecord:
    record = to_record(line, "messages")
    assert isinstance(record, MessagesRecord)
    return record


def _shown(tokenizer: PreTrainedTokenizerFast, record: TokenizedRecord) -> str:
    """Return the text of a record with brackets around what is learned."""
    shown, learning, run = "", False, []  # type: tuple[str, bool, list[int]]
    for token, learned in [*zip(record.input_ids, record.supervised, strict=True), (-1, False)]:
        if learned != learning or token == -1:
            shown += tokenizer.decode(run) + ("⟧" if learning else "⟦" if learned else "")
            learning, run = learned, []
        run.append(token)
    return shown


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenize_conversation_of_a_family_is_learned_as_golden(make_family: MakeFamily, name: str) -> None:
    """The library's own rendering, every answer with its end of turn learned, and nothing else."""
    family, tokenizer = FAMILIES[name], make_family(name)
    line = _chat(family)
    record = RecordTokenizer(tokenizer).tokenize("d:1", _record(line))
    assert _shown(tokenizer, record) == family.chat
    assert tokenizer.decode(record.input_ids) == tokenizer.apply_chat_template(line["messages"], tokenize=False)
    begins = [token for token in record.input_ids if token == tokenizer.bos_token_id]
    assert len(begins) == family.chat.count(family.begin or "\0")


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("as_text", [False, True], ids=["object", "text"])
def test_tokenize_tool_calls_of_a_family_are_learned_as_golden(
    make_family: MakeFamily, name: str, as_text: bool
) -> None:
    """Calls are learned as the family writes them, results and definitions are given; arguments come either way."""
    family, tokenizer = FAMILIES[name], make_family(name)
    turns = copy.deepcopy(TOOL_TURNS)
    if as_text:
        call = turns[1]["tool_calls"][0]["function"]
        call["arguments"] = json.dumps(call["arguments"], ensure_ascii=False)
    made = RecordTokenizer(tokenizer)
    record = made.tokenize("d:1", _record({"messages": turns, "tools": [WEATHER]}))
    assert family.tools is not None
    assert _shown(tokenizer, record) == family.tools
    assert made.left_out == ({"tools": 1} if name == "deepseek" else {})
    assert record.reference == "Yes."
    call_record = made.tokenize("d:1", _record({"messages": turns[:2], "tools": [WEATHER]}))
    assert call_record.reference is not None
    assert "weather" in call_record.reference
    assert tokenizer.eos_token not in call_record.reference


@pytest.mark.parametrize(
    ("name", "written"),
    [("chatml", '{"city":  "K\\u00f6ln"}'), ("deepseek", '{"city":  "K\\u00f6ln"}'), ("llama_3", '{"city": "Köln"}')],
)
def test_tokenize_arguments_as_text_stay_text_where_the_template_takes_text(
    make_family: MakeFamily, name: str, written: str
) -> None:
    """Where it takes objects alone, they are written anew, once; nowhere are they escaped twice."""
    turns = copy.deepcopy(TOOL_TURNS[:2])
    turns[1]["tool_calls"][0]["function"]["arguments"] = '{"city":  "K\\u00f6ln"}'
    record = RecordTokenizer(make_family(name)).tokenize("d:1", _record({"messages": turns}))
    assert record.reference is not None
    assert written in record.reference


def test_tokenize_arguments_go_as_they_are_to_a_template_that_asks_what_they_are(make_family: MakeFamily) -> None:
    """Such a template writes an object in a way of its own, and a text as it stands."""
    tokenizer = make_family("chatml")
    tokenizer.chat_template = FAMILIES["chatml"].template.replace(
        "{%- if call.function.arguments is string %}{{- call.function.arguments }}",
        "{%- if call.function.arguments is not mapping %}{{- call.function.arguments }}{%- elif true %}"
        "{%- for key, value in call.function.arguments.items() %}{{- key + '=' + value }}{%- endfor %}",
    )
    for arguments, written in (({"city": "Köln"}, '"arguments": city=Köln}'), ('{"a":1}', '"arguments": {"a":1}}')):
        turns = copy.deepcopy(TOOL_TURNS[:2])
        turns[1]["tool_calls"][0]["function"]["arguments"] = arguments
        record = RecordTokenizer(tokenizer).tokenize("d:1", _record({"messages": turns}))
        assert record.reference is not None
        assert written in record.reference


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("supervise", ["all_assistant_turns", "last_assistant_turn"])
def test_encode_prompt_of_a_family_is_the_prompt_of_training(
    make_family: MakeFamily, name: str, supervise: Any
) -> None:
    """Turn after turn: generation starts from the very ids that stood before the answer in training."""
    family, tokenizer = FAMILIES[name], make_family(name)
    lines = [_chat(family)] + ([{"messages": TOOL_TURNS, "tools": [WEATHER]}] if family.tools else [])
    made = RecordTokenizer(tokenizer, supervise=supervise)
    for line in lines:
        answers = [index for index, turn in enumerate(line["messages"]) if turn["role"] == "assistant"]
        for answer in answers:
            whole = _record({**line, "messages": line["messages"][: answer + 1]})
            waiting = _record({**line, "messages": line["messages"][:answer]})
            record = made.tokenize("d:1", whole)
            assert made.encode_prompt(whole) == made.encode_prompt(waiting) == record.prompt_ids
            assert record.supervised_count > 0
            assert not any(record.supervised[: record.prompt_length]) or supervise == "all_assistant_turns"


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenize_last_turn_only_learns_the_last_answer(make_family: MakeFamily, name: str) -> None:
    """The ids are the same; what is learned is the last of the spans that are learned otherwise."""
    family, tokenizer = FAMILIES[name], make_family(name)
    made = RecordTokenizer(tokenizer, supervise="last_assistant_turn")
    record = made.tokenize("d:1", _record(_chat(family)))
    before, _, last = family.chat.rpartition("⟦")
    assert _shown(tokenizer, record) == before.replace("⟦", "").replace("⟧", "") + "⟦" + last


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenize_answer_with_weight_zero_is_given_and_not_learned(make_family: MakeFamily, name: str) -> None:
    """The file says which answers are to be learned; the ids are the same."""
    family, tokenizer = FAMILIES[name], make_family(name)
    line = copy.deepcopy(_chat(family))
    line["messages"][-3]["weight"] = 0
    record = RecordTokenizer(tokenizer).tokenize("d:1", _record(line))
    _, _, rest = family.chat.partition("⟧")
    assert _shown(tokenizer, record) == family.chat.replace("⟦", "", 1).replace("⟧", "", 1)
    assert "⟦" in rest
    line["messages"][-1]["weight"] = 0
    for supervise in ("all_assistant_turns", "last_assistant_turn"):
        assert RecordTokenizer(tokenizer, supervise).tokenize("d:1", _record(line)).supervised_count == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenize_control_tokens_in_messages_stay_text_in_every_family(make_family: MakeFamily, name: str) -> None:
    """No spelling of the family's own tokens opens or closes a turn, in content or in arguments and definitions."""
    family, tokenizer = FAMILIES[name], make_family(name)
    control = set(tokenizer.convert_tokens_to_ids(list(family.special_tokens)))
    attack = "x" + "x".join(family.special_tokens) + "x"

    def control_ids(text: str) -> list[int]:
        line = _chat(family)
        line["messages"] = [{**turn, "content": text} for turn in line["messages"]]
        if family.tools is not None:
            call = {"id": "abcdefghi", "function": {"name": text, "arguments": {text: [text]}}}
            turn = {"role": "assistant", "content": None, "tool_calls": [call]}
            line = {"messages": [*line["messages"][:-1], turn], "tools": [{"name": "weather", "description": text}]}
        record = RecordTokenizer(tokenizer).tokenize("d:1", _record(line))
        return [token for token in record.input_ids if token in control]

    assert control_ids(attack) == control_ids("harmless")


def test_tokenize_conversations_in_turn_do_not_disturb_each_other(make_family: MakeFamily) -> None:
    """Renderings are kept for one conversation: another with the same beginning, or other tools, has its own."""
    tokenizer = make_family("chatml")
    first, longer = _record({"messages": TOOL_TURNS[:2]}), _record({"messages": TOOL_TURNS})
    with_tools = MessagesRecord(messages=first.messages, tools=({"type": "function", "function": {"name": "x"}},))
    lengthened = MessagesRecord(messages=(*first.messages, *longer.messages[2:]))
    other = _record({"messages": FIRST})
    records = [first, other, longer, other, first, with_tools, lengthened, first, with_tools]
    made = RecordTokenizer(tokenizer)
    for record in records:
        assert made.tokenize("d:1", record) == RecordTokenizer(tokenizer).tokenize("d:1", record)
        assert made.encode_prompt(record) == RecordTokenizer(tokenizer).encode_prompt(record)


def test_tokenize_text_may_spell_control_tokens_only_where_asked(make_family: MakeFamily) -> None:
    """Conversations that somebody rendered before are learned as they stand, begin and end not doubled."""
    tokenizer = make_family("llama_3")
    text = FAMILIES["llama_3"].chat.replace("⟦", "").replace("⟧", "")
    asked = RecordTokenizer(tokenizer, trust_control_tokens_in_text=True)
    rendered = asked.tokenize("d:1", _record(_chat(FAMILIES["llama_3"])))
    plain = asked.tokenize("d:1", to_record({"text": text}, "text"))
    assert plain.input_ids == rendered.input_ids
    pair = {"prompt": text[: text.rindex("No.")], "completion": "No.<|eot_id|>"}
    assert asked.tokenize("d:1", to_record(pair, "prompt_completion")).input_ids == rendered.input_ids
    unasked = RecordTokenizer(tokenizer).tokenize("d:1", to_record({"text": text}, "text"))
    assert len(unasked.input_ids) > len(plain.input_ids)
    spelled = _record({"messages": [{"role": "user", "content": "<|eot_id|>"}, *FIRST[1:]]})
    assert asked.tokenize("d:1", spelled).input_ids.count(tokenizer.eos_token_id) == 4
    assert RecordTokenizer(tokenizer).tokenize("d:1", spelled).input_ids.count(tokenizer.eos_token_id) == 3


@pytest.mark.parametrize(
    ("name", "turns", "reason"),
    [
        ("gemma", [SYSTEM, *FIRST], "refuses this conversation: System role not supported"),
        ("llama_2", [*FIRST, *FIRST[1:]], "refuses this conversation: Conversation roles must alternate"),
        ("zephyr", TOOL_TURNS[:2], r"fails on this conversation|leaves out|refuses this conversation"),
        ("phi", [TOOL_TURNS[0], {**TOOL_TURNS[1], "content": "x"}], r"leaves out the tool calls of messages\[1\]"),
        ("llama_3", [TOOL_TURNS[0], {**TOOL_TURNS[1], "content": "Wait."}], r"leaves out the content of messages\[1\]"),
    ],
)
def test_tokenize_conversation_that_a_family_cannot_render_is_refused(
    make_family: MakeFamily, name: str, turns: list[dict[str, Any]], reason: str
) -> None:
    """A template says no in its own words; an answer that it would leave out is never learned without it."""
    with pytest.raises(ValueError, match=reason):
        RecordTokenizer(make_family(name)).tokenize("d:1", _record({"messages": turns}))


def test_tokenize_turns_that_a_template_leaves_out_are_counted(make_family: MakeFamily) -> None:
    """Tools and results for which a template has no place are no part of the prompt, and that is said."""
    made = RecordTokenizer(make_family("phi"))
    assert made.left_out == {}
    turns = [TOOL_TURNS[0], {"role": "assistant", "content": "Hm."}, TOOL_TURNS[2], TOOL_TURNS[3]]
    for _ in range(2):
        made.tokenize("d:1", _record({"messages": turns, "tools": [WEATHER]}))
    assert made.left_out == {"tools": 2, "tool": 2}


@pytest.mark.parametrize("name", FAMILIES)
def test_end_ids_of_a_family_hold_what_ends_its_answers(make_family: MakeFamily, name: str) -> None:
    """A turn may end with another token than a text does; an answer that is learned ends with one of the two."""
    tokenizer = make_family(name)
    made = RecordTokenizer(tokenizer)
    record = _record(_chat(FAMILIES[name]))
    turn_end = {"gemma": "<end_of_turn>", "phi": "<|end|>"}.get(name, FAMILIES[name].end)
    assert made.end_ids(record) == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(turn_end)}
    assert made.end_ids(to_record({"text": "x"}, "text")) == {tokenizer.eos_token_id}
    assert answer_ends(tokenizer) == made.end_ids(record)
    tokenizer.chat_template = "{{ 10 ** 100 }}"
    assert answer_ends(tokenizer) == {tokenizer.eos_token_id}
    tokenizer.chat_template = None
    assert answer_ends(tokenizer) == {tokenizer.eos_token_id}
    tokenized = made.tokenize("d:1", record)
    ends = [
        token
        for token, learned in zip(tokenized.input_ids, tokenized.supervised, strict=True)
        if learned and token in made.end_ids(record)
    ]
    assert len(ends) == (3 if name == "phi" else 2)


def test_tokenize_template_that_rewrites_earlier_turns_can_learn_the_last(make_family: MakeFamily) -> None:
    """Where thoughts of earlier turns are dropped, or tools move along, only the last answer has one prompt."""
    tokenizer = make_family("chatml")
    tokenizer.chat_template = FAMILIES["chatml"].template.replace(
        "{%- if message.content %}{{- message.content }}{%- endif %}",
        "{{- message.content if loop.last else message.content.split('</think>')[-1] }}",
    )
    thought = {"role": "assistant", "content": "<think>so</think>Yes."}
    line = {"messages": [FIRST[0], thought, SECOND[0], thought]}
    with pytest.raises(ValueError, match=r"no prefix of the whole.*data\.supervise=last_assistant_turn"):
        RecordTokenizer(tokenizer).tokenize("d:1", _record(line))
    made = RecordTokenizer(tokenizer, supervise="last_assistant_turn")
    record = made.tokenize("d:1", _record(line))
    assert record.prompt_ids == made.encode_prompt(_record(line))
    assert _shown(tokenizer, record).count("⟦") == 1
    assert "⟦<think>so</think>Yes.<|im_end|>⟧" in _shown(tokenizer, record)
