"""Generation against a naive loop without cache, padding or batches, and the promises around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from codex_ml.errors import ModelError, NonFiniteError, UserError
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator, require_room
from codex_ml.generation.requests import Generation, GenerationRequest
from error_checks import has_code

TEXTS = (
    "The night nurse",
    "Two trains leave the valley before the rain begins, and one",
    "How",
    "Order 4711: two boxes of screws",
    "Question: which colour is the roof of the station? Answer:",
    "A closed network has no door",
    "ünï",
)


@dataclass(frozen=True)
class Found:
    """A finding: its rule and its span in characters."""

    rule_id: str
    start: int = 0
    length: int = 1


@dataclass(frozen=True)
class Filtered:
    """The answer of a filter."""

    text: str
    findings: tuple[Found | str, ...]
    action: str


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[Generation]:
    """Answer prompts greedily."""
    requests = [GenerationRequest(tuple(prompt), SamplingSettings(max_new_tokens)) for prompt in prompts]
    generator = TextGenerator(model, tokenizer, **options)
    return generator.generate(requests, batch_size=batch_size, on_progress=on_progress)


@pytest.fixture(scope="module")
def models(tiny_llama_directory: Path, tiny_gpt2_directory: Path) -> dict[str, nn.Module]:
    """Return the tiny models, and the llama under a LoRA adapter that changes what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_llama_directory),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    return {
        "llama": AutoModelForCausalLM.from_pretrained(tiny_llama_directory),
        "gpt2": AutoModelForCausalLM.from_pretrained(tiny_gpt2_directory),
        "peft": adapted,
    }


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[list[int]]:
    """Return prompts of quite different lengths, not in the order of their lengths."""
    return [tiny_tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]


def naive(model: nn.Module, prompt: Sequence[int], limit: int, stops: Sequence[int]) -> tuple[list[int], str]:
    """Extend one prompt by recomputing everything for each token."""
    token_ids = list(prompt)
    with torch.no_grad():
        model.eval()
        for _ in range(limit):
            token_id = int(model(input_ids=torch.tensor([token_ids])).logits[0, -1].argmax())
            if token_id in stops:
                return token_ids[len(prompt) :], "stop"
            token_ids.append(token_id)
    return token_ids[len(prompt) :], "length"


def common_token(model: nn.Module, prompts: Sequence[Sequence[int]]) -> int:
    """Return a token that ends some answers in their middle and others not at all."""
    answers = [naive(model, prompt, 16, ())[0] for prompt in prompts]
    for token_id in {token_id for answer in answers for token_id in answer[2:]}:
        holding = sum(token_id in answer for answer in answers)
        if 2 <= holding < len(answers):
            return token_id
    raise AssertionError("no answer shares a token with another")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "peft"])
@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_generate_any_batch_size_equals_the_naive_loop(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any, kind: str, batch_size: int
) -> None:
    """Padding, cache and rows that leave early change no token, and results come in the order of the prompts."""
    stop = common_token(models[kind], prompts)
    expected = [naive(models[kind], prompt, 16, (stop,)) for prompt in prompts]
    answers = generate(
        models[kind], tiny_tokenizer, prompts, max_new_tokens=16, batch_size=batch_size, stop_token_ids=(stop,)
    )
    assert [(list(answer.token_ids), answer.finish_reason) for answer in answers] == expected
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    assert [answer.token_count for answer in answers] == [len(token_ids) for token_ids, _ in expected]


def test_generate_text_leaves_out_special_tokens_and_keeps_spaces(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """The text is the decoded new tokens, not stripped and without special tokens."""
    answers = generate(models["llama"], tiny_tokenizer, prompts, max_new_tokens=12)
    for answer in answers:
        assert answer.text == tiny_tokenizer.decode(list(answer.token_ids), skip_special_tokens=True)
    assert all("<|" not in answer.text for answer in answers)


def test_generate_default_stop_is_the_end_token(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """Without stop tokens of the caller the tokenizer's end-of-sequence token ends an answer."""
    stop = common_token(models["llama"], prompts)
    tokenizer = type(tiny_tokenizer)(
        tokenizer_object=tiny_tokenizer.backend_tokenizer,
        pad_token="<|pad|>",
        eos_token=tiny_tokenizer.convert_ids_to_tokens(stop),
    )
    answers = generate(models["llama"], tokenizer, prompts, max_new_tokens=16)
    assert [(list(answer.token_ids), answer.finish_reason) for answer in answers] == [
        naive(models["llama"], prompt, 16, (stop,)) for prompt in prompts
    ]


def test_generate_model_with_sampling_settings_of_its_own_ignores_them(
    tiny_llama_directory: Path, models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """A repetition penalty or a temperature that came with the weights changes nothing."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama_directory)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.do_sample = True
    model.generation_config.temperature = 9.0
    plain = generate(models["llama"], tiny_tokenizer, prompts, max_new_tokens=12)
    assert generate(model, tiny_tokenizer, prompts, max_new_tokens=12) == plain


def test_generate_zero_new_tokens_is_an_empty_text(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """No room for a token means an empty answer that ended by its length."""
    answers = generate(models["llama"], tiny_tokenizer, prompts, max_new_tokens=0)
    assert [(answer.text, answer.finish_reason) for answer in answers] == [("", "length")] * len(prompts)


def test_generate_no_prompts_is_no_answer(models: dict[str, nn.Module], tiny_tokenizer: Any) -> None:
    """An empty list of prompts gives an empty list."""
    assert generate(models["llama"], tiny_tokenizer, [], max_new_tokens=4) == []


def test_generate_empty_prompt_begins_at_the_begin_token(models: dict[str, nn.Module], tiny_tokenizer: Any) -> None:
    """A prompt without tokens is answered as the begin token alone."""
    empty, begin = generate(models["llama"], tiny_tokenizer, [[], [tiny_tokenizer.bos_token_id]], max_new_tokens=6)
    assert empty == begin


def test_generate_empty_prompt_without_begin_or_end_token_is_refused(
    models: dict[str, nn.Module], tiny_tokenizer: Any
) -> None:
    """Nothing can stand for an empty prompt when the tokenizer has no such token."""
    bare = type(tiny_tokenizer)(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match="prompt 2 is empty"):
        generate(models["llama"], bare, [[9], []], max_new_tokens=4)


def test_generate_prompt_without_room_is_refused_before_any_work(
    models: dict[str, nn.Module], tiny_tokenizer: Any
) -> None:
    """512 positions hold a prompt of 500 and 12 new tokens, and not one more."""
    assert generate(models["gpt2"], tiny_tokenizer, [[9] * 511], max_new_tokens=1)[0].token_count == 1
    require_room(models["peft"], [500], [12])
    calls: list[int] = []
    with pytest.raises(UserError, match=r"1 of 2 prompts .* number 2 is the longest \(500 tokens\)"):
        generate(
            models["gpt2"],
            tiny_tokenizer,
            [[9], [9] * 500],
            max_new_tokens=13,
            on_progress=lambda done, _total: calls.append(done),
        )
    assert calls == []


def test_generate_empty_batch_is_refused(models: dict[str, nn.Module], tiny_tokenizer: Any) -> None:
    """A batch of nothing is an error of the user."""
    with pytest.raises(UserError, match="batch_size is 0"):
        generate(models["llama"], tiny_tokenizer, [[9]], max_new_tokens=1, batch_size=0)


def test_generate_model_in_training_mode_is_given_back_in_training_mode(
    models: dict[str, nn.Module], tiny_tokenizer: Any
) -> None:
    """Dropout is off inside and as it was afterwards."""
    models["llama"].train()
    generate(models["llama"], tiny_tokenizer, [[9]], max_new_tokens=2)
    assert all(module.training for module in models["llama"].modules())


def test_generate_progress_counts_up_to_all_prompts(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """After each batch the caller hears how many prompts are done."""
    heard: list[tuple[int, int]] = []
    generate(
        models["llama"],
        tiny_tokenizer,
        prompts,
        max_new_tokens=2,
        batch_size=3,
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(3, 7), (6, 7), (7, 7)]


def test_generate_nan_weights_stop_with_an_error(tiny_llama_directory: Path, tiny_tokenizer: Any) -> None:
    """The most likely token of NaN is no answer."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama_directory)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, check=lambda error: has_code(error, "GENERATION_LOGITS_NOT_FINITE")):
        generate(model, tiny_tokenizer, [[9]], max_new_tokens=2)


def test_generate_architecture_without_key_value_cache_is_refused(tiny_tokenizer: Any) -> None:
    """A recurrent model is refused by name instead of failing somewhere inside."""
    with pytest.raises(ModelError, match="Linear cannot be used for generation"):
        generate(nn.Linear(2, 2), tiny_tokenizer, [[9]], max_new_tokens=2)


@pytest.mark.safety
def test_generate_output_redacted_gives_neither_text_nor_tokens_of_the_original(
    models: dict[str, nn.Module], prompts: list[list[int]], tiny_tokenizer: Any
) -> None:
    """After redaction the tokens are gone too, because they would spell what was taken out."""
    plain = generate(models["llama"], tiny_tokenizer, prompts[:1], max_new_tokens=6)[0]
    redacted = generate(
        models["llama"],
        tiny_tokenizer,
        prompts[:1],
        max_new_tokens=6,
        filter_output=lambda _text: Filtered("[REDACTED]", (Found("rule-1"),), "redact"),
    )[0]
    assert (redacted.text, redacted.token_ids, redacted.redacted) == ("[REDACTED]", (), True)
    assert redacted.output_findings == (Found("rule-1"),)
    assert redacted.token_count == plain.token_count == 6


@pytest.mark.safety
@pytest.mark.parametrize("action", ["block", "drop", "something new"])
def test_generate_output_not_allowed_is_blocked(models: dict[str, nn.Module], tiny_tokenizer: Any, action: str) -> None:
    """Whatever is neither keep nor redact lets nothing through, known action or not."""
    answer = generate(
        models["llama"],
        tiny_tokenizer,
        [[9, 10]],
        max_new_tokens=3,
        filter_output=lambda text: Filtered(text, (Found("rule-1"),), action),
    )[0]
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("", (), "blocked")


@pytest.mark.safety
def test_generate_prompt_blocked_is_never_given_to_the_model(models: dict[str, nn.Module], tiny_tokenizer: Any) -> None:
    """A blocked prompt has an empty answer and its findings; the others are answered as ever."""
    secret, harmless = (tiny_tokenizer.encode(text) for text in ("the secret is 7", "the roof is red"))

    def block_secrets(text: str) -> Filtered:
        found = "secret" in text
        return Filtered(text, ("rule-9",) if found else (), "block" if found else "keep")

    answers = generate(
        models["llama"], tiny_tokenizer, [secret, harmless], max_new_tokens=4, filter_prompt=block_secrets
    )
    assert (answers[0].text, answers[0].finish_reason, answers[0].prompt_findings) == ("", "blocked", ("rule-9",))
    assert answers[1] == generate(models["llama"], tiny_tokenizer, [harmless], max_new_tokens=4)[0]


@pytest.mark.safety
def test_generate_prompt_redacted_is_answered_as_the_redacted_text(
    models: dict[str, nn.Module], tiny_tokenizer: Any
) -> None:
    """The model sees the redacted prompt, with its special tokens still special."""
    prompt, redacted = (
        tiny_tokenizer.encode(f"<|user|>the code is {code}<|assistant|>", add_special_tokens=False)
        for code in ("4711", "[CODE]")
    )

    def redact(text: str) -> Filtered:
        return Filtered(text.replace("4711", "[CODE]"), ("rule-2",), "redact")

    seen = generate(models["llama"], tiny_tokenizer, [prompt], max_new_tokens=8, filter_prompt=redact)[0]
    assert seen.token_ids == generate(models["llama"], tiny_tokenizer, [redacted], max_new_tokens=8)[0].token_ids
    assert seen.prompt_findings == ("rule-2",)
