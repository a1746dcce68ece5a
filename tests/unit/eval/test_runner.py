"""A whole evaluation of tiny models: every record once, nothing depends on the batch size, errors come first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from codex_ml.config.schema.data import DataSection
from codex_ml.data.dataset import build_dataset
from codex_ml.errors import NonFiniteError, UserError
from codex_ml.eval.results import EvaluationResult
from codex_ml.eval.runner import evaluate_model
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator
from codex_ml.generation.requests import GenerationRequest
from codex_ml.safety.filters import Finding
from error_checks import has_code

ALL_METRICS = ["bleu", "rouge_l", "f1", "exact_match", "loss", "perplexity", "token_accuracy"]
PAIRS = (
    ("The night nurse", " writes the temperature of every patient"),
    ("Two trains leave the valley before the rain begins, and", " one"),
    ("How many apples?", " Nine are left."),
    ("Order 4711:", " two boxes of screws, one hammer"),
    ("A closed network has", " no door to the street, so the models have to live inside the house."),
    ("Which colour?", " red"),
    ("x", ""),
)


@dataclass(frozen=True)
class Record:
    """A tokenized record."""

    record_id: str
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    prompt_length: int
    reference: str | None
    prompt_redacted: bool = False
    reference_redacted: bool = False


@dataclass(frozen=True)
class Span:
    """A finding as the data room reads it."""

    rule_id: str
    start: int
    length: int


@dataclass(frozen=True)
class Filtered:
    """The answer of a filter."""

    text: str
    findings: tuple[Any, ...]
    action: str


@pytest.fixture(scope="module")
def model(tiny_llama_directory: Path) -> nn.Module:
    """Return the tiny llama."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama_directory)


@pytest.fixture(scope="module")
def records(tiny_tokenizer: Any) -> list[Record]:
    """Return prompt and completion records with a supervised end token."""
    made = []
    for number, (prompt, completion) in enumerate(PAIRS):
        prompt_ids = tiny_tokenizer.encode(prompt, add_special_tokens=False)
        completion_ids = [
            *tiny_tokenizer.encode(completion, add_special_tokens=False),
            tiny_tokenizer.eos_token_id,
        ]
        supervised = [False] * len(prompt_ids) + [True] * len(completion_ids)
        made.append(
            Record(f"r{number}", (*prompt_ids, *completion_ids), tuple(supervised), len(prompt_ids), completion)
        )
    return made


def run(model: nn.Module, tokenizer: Any, records: Sequence[Record], **settings: Any) -> EvaluationResult:
    """Evaluate with short answers."""
    return evaluate_model(model, tokenizer, records, **{"metrics": ALL_METRICS, "max_new_tokens": 8, **settings})


def test_evaluate_any_batch_size_gives_the_same_numbers_and_predictions(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """One, three or all records at a time: same text, same loss, in the order of the records."""
    one = run(model, tiny_tokenizer, records, batch_size=1)
    for batch_size in (3, 32):
        other = run(model, tiny_tokenizer, records, batch_size=batch_size)
        assert other.predictions == one.predictions
        assert other.metrics["loss"].value == pytest.approx(one.metrics["loss"].value, rel=1e-6)
        assert {name: result.value for name, result in other.metrics.items() if name not in ("loss", "perplexity")} == {
            name: result.value for name, result in one.metrics.items() if name not in ("loss", "perplexity")
        }


def test_evaluate_all_metrics_every_record_is_scored_once(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """Loss is the token mean over records alone, predictions are what generation says, the counts add up."""
    result = run(model, tiny_tokenizer, records)
    loss_sum, tokens = 0.0, 0
    for record in records:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([record.input_ids])).logits[0].log_softmax(-1)
        for position in range(record.prompt_length, len(record.input_ids)):
            loss_sum -= float(logits[position - 1, record.input_ids[position]])
            tokens += 1
    assert result.metrics["loss"].value == pytest.approx(loss_sum / tokens, rel=1e-6)
    assert result.metrics["perplexity"].value == pytest.approx(math.exp(loss_sum / tokens), rel=1e-5)
    assert (result.records_scored, result.supervised_tokens) == (len(records), tokens)
    answers = TextGenerator(model, tiny_tokenizer).generate(
        [GenerationRequest(tuple(record.input_ids[: record.prompt_length]), SamplingSettings(8)) for record in records]
    )
    assert [(one.record_id, one.prediction) for one in result.predictions] == [
        (record.record_id, answer.text) for record, answer in zip(records, answers, strict=True)
    ]
    assert result.generated_tokens == sum(answer.token_count for answer in answers)
    assert sum(result.finish_reasons.values()) == len(records)
    assert list(result.metrics) == ALL_METRICS
    assert "tok:13a" in result.metrics["bleu"].signature


def test_evaluate_records_that_hold_the_models_answers_score_at_the_top(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """With the model's own answers as references BLEU is 100 and the rest 1."""
    predictions = run(model, tiny_tokenizer, records[:5]).predictions
    own = [replace(record, reference=one.prediction) for record, one in zip(records[:5], predictions, strict=True)]
    result = run(model, tiny_tokenizer, own, metrics=["bleu", "exact_match"], bleu_tokenize="char")
    assert [metric.value for metric in result.metrics.values()] == pytest.approx([100, 1])
    assert "tok:char" in result.metrics["bleu"].signature


def test_evaluate_text_stream_with_model_metrics_does_not_generate(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """Text streams have a loss; nothing is generated for it."""
    stream = [
        replace(record, reference=None, prompt_length=0, supervised=(True,) * len(record.input_ids))
        for record in records
    ]
    result = run(model, tiny_tokenizer, stream, metrics=["loss", "token_accuracy"])
    assert result.predictions == ()
    assert result.supervised_tokens == sum(len(record.input_ids) - 1 for record in records)


def test_evaluate_text_stream_with_text_metrics_names_those_that_work(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """BLEU over a text stream is refused, and the message says what to ask for."""
    mixed = [*records[:2], replace(records[2], reference=None)]
    with pytest.raises(UserError, match="bleu, f1 cannot score 1 of 3") as caught:
        run(model, tiny_tokenizer, mixed, metrics=["bleu", "f1", "loss"])
    assert "[loss,perplexity,token_accuracy]" in caught.value.fix


def test_evaluate_empty_set_is_an_error(model: nn.Module, tiny_tokenizer: Any) -> None:
    """No record, no number."""
    with pytest.raises(UserError, check=lambda error: has_code(error, "EVAL_SET_EMPTY")):
        run(model, tiny_tokenizer, [])


def test_evaluate_nothing_supervised_is_an_error(model: nn.Module, tiny_tokenizer: Any, records: list[Record]) -> None:
    """A loss over no token is not a number, also where the only supervised token has nothing before it."""
    blind = [replace(record, supervised=(True, *[False] * (len(record.input_ids) - 1))) for record in records]
    with pytest.raises(UserError, check=lambda error: has_code(error, "EVAL_NO_SUPERVISED_TOKEN")):
        run(model, tiny_tokenizer, blind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["blue"]}, "unknown metric"),
        ({"bleu_tokenize": "flores200"}, "bleu: tokenize"),
        ({"max_new_tokens": 500}, "do not leave enough positions"),
    ],
)
def test_evaluate_impossible_wish_is_refused_before_the_first_forward(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record], settings: dict[str, Any], message: str
) -> None:
    """What cannot be done is said before any time is spent on the loss."""
    heard: list[str] = []
    with pytest.raises(UserError, match=message):
        run(model, tiny_tokenizer, records, on_progress=lambda stage, *_: heard.append(stage), **settings)
    assert heard == []


def test_evaluate_record_longer_than_the_model_is_named(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """A record beyond the positions is an error that names it by its id, not by its content."""
    long = Record("long-one", (9,) * 513, (True,) * 513, 1, "x")
    with pytest.raises(UserError, match="1 evaluation records are longer than the 512") as caught:
        run(model, tiny_tokenizer, [*records, long])
    assert "long-one, has 513 tokens" in caught.value.why


def test_evaluate_nan_loss_is_an_error_that_names_records(
    tiny_llama_directory: Path, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """A loss that is not finite ends the evaluation instead of entering a mean."""
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(tiny_llama_directory)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"in a batch of 7 records \(r4, .*, …\)"):
        run(broken, tiny_tokenizer, records)


def test_evaluate_progress_reaches_all_records_in_both_stages(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """The caller hears of loss and of generation, up to the last record."""
    heard: list[tuple[str, int, int]] = []
    run(model, tiny_tokenizer, records, batch_size=4, on_progress=lambda *news: heard.append(news))
    assert heard == [("loss", 4, 7), ("loss", 7, 7), ("generation", 4, 7), ("generation", 7, 7)]


def test_evaluate_model_in_training_mode_keeps_its_mode(
    tiny_llama_directory: Path, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """Evaluation in the middle of training leaves dropout on."""
    from transformers import AutoModelForCausalLM

    training = AutoModelForCausalLM.from_pretrained(tiny_llama_directory).train()
    run(training, tiny_tokenizer, records[:2])
    assert all(module.training for module in training.modules())


@pytest.mark.safety
def test_evaluate_policy_changes_predictions_and_references_alike_and_counts_them(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """Both sides pass the same policy before they are scored; the audit hears record, field and finding."""
    plain = run(model, tiny_tokenizer, records)
    secret = plain.predictions[0].prediction
    leaking = [replace(record, reference=f"{secret} {record.record_id}") for record in records[:3]]

    def redact(text: str) -> Filtered:
        if secret not in text:
            return Filtered(text, (), "keep")
        found = Finding("rule-1", "regex", text.index(secret), len(secret))
        return Filtered(text.replace(secret, "[X]"), (found,), "redact")

    heard: list[tuple[str, str, tuple[str, ...]]] = []
    result = run(
        model,
        tiny_tokenizer,
        leaking,
        filter_text=redact,
        on_findings=lambda record_id, field, findings: heard.append(
            (record_id, field, tuple(finding.rule_id for finding in findings))
        ),
    )
    assert [one.reference for one in result.predictions] == ["[X] r0", "[X] r1", "[X] r2"]
    assert result.predictions[0].prediction == "[X]"
    assert (result.redacted_predictions, result.redacted_references) == (1, 3)
    assert sorted(heard) == [
        ("r0", "prediction", ("rule-1",)),
        *((f"r{number}", "reference", ("rule-1",)) for number in range(3)),
    ]
    assert secret not in str(result)


@pytest.mark.safety
def test_evaluate_redaction_at_reading_is_counted(model: nn.Module, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """From file to result: the second pass finds nothing more, and the numbers still say what was taken out."""
    lines = [("Who? ", " red"), ("Who? ", " SECRET"), ("SECRET? ", " red"), ("SECRET? ", " SECRET"), ("x ", " y")]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"prompt": one, "completion": two}) + "\n" for one, two in lines), "utf-8")

    def redact(text: str) -> Filtered:
        found = "SECRET" in text
        finding = Span("rule-1", text.index("SECRET"), 6) if found else None
        return Filtered(text.replace("SECRET", "[X]"), (finding,) if finding else (), "redact" if found else "keep")

    dataset = build_dataset(DataSection(test=path), tiny_tokenizer, redact, lambda *_: None, ("test",))
    for filter_text in (redact, None):
        result = run(model, tiny_tokenizer, dataset.require("test"), metrics=["f1"], filter_text=filter_text)
        assert [one.reference for one in result.predictions] == [" red", " [X]", " red", " [X]", " y"]
        assert (result.redacted_references, result.redacted_prompts) == (2, 2)


@pytest.mark.safety
def test_evaluate_policy_that_blocks_scores_empty_texts(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """A text that the policy lets not through is neither scored nor kept."""
    result = run(
        model,
        tiny_tokenizer,
        records[:2],
        metrics=["f1"],
        filter_text=lambda text: Filtered(text, ("rule-1",), "block"),
    )
    assert {(one.prediction, one.reference, one.finish_reason) for one in result.predictions} == {("", "", "blocked")}
    assert (result.redacted_references, result.finish_reasons) == (2, {"blocked": 2})


@pytest.mark.safety
def test_evaluate_prompt_that_the_policy_blocks_is_not_generated_from(
    model: nn.Module, tiny_tokenizer: Any, records: list[Record]
) -> None:
    """The policy stands before generation too: a forbidden prompt gives no answer, and the audit hears of it."""

    def block_nurses(text: str) -> Filtered:
        found = "nurse" in text
        return Filtered(text, ("rule-2",) if found else (), "block" if found else "keep")

    heard: list[tuple[str, str]] = []
    result = run(
        model,
        tiny_tokenizer,
        records[:2],
        metrics=["f1"],
        filter_text=block_nurses,
        on_findings=lambda record_id, field, _findings: heard.append((record_id, field)),
    )
    assert [one.finish_reason == "blocked" for one in result.predictions] == [True, False]
    assert heard == [("r0", "prompt")]
    assert result.redacted_prompts == 1
