"""A rule that breaks down lets nothing through, wherever the filters stand; and what is scored has passed them."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.config.schema.root import EvaluateConfig
from codex_ml.data.dataset import build_dataset
from codex_ml.errors import CodexError
from codex_ml.eval.runner import evaluate_model
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator
from codex_ml.generation.requests import GenerationRequest
from codex_ml.monitoring.codex_logging import NdjsonWriter
from codex_ml.monitoring.debug_log import LOGGER, debug_log
from codex_ml.recipes.data.prepare import _fit_to_learn
from codex_ml.recipes.evaluate import EvaluateDependencies, evaluate
from codex_ml.runs.listing import BASE, Target
from codex_ml.safety.filters import SafetyAudit, SafetyFilters
from codex_ml.safety.matching import RuleFailedError, RuleMatch
from codex_ml.safety.policy import load_policy, parse_policy

pytestmark = pytest.mark.safety

SECRET = "SwordFish"
MAIL = "ann.miller" + "@" + "firm-mail.de"


@pytest.fixture(params=["rule", "other"])
def broken(request: pytest.FixtureRequest) -> SafetyFilters:
    """Return filters whose one rule breaks down, or that break down themselves."""
    policy = parse_policy("version: 1\nrules:\n  - {id: frail, kind: regex, description: d, patterns: ['zzz+']}", "p")

    def find(_text: str) -> list[RuleMatch]:
        raise RuleFailedError(policy.rules[0]) if request.param == "rule" else RuntimeError(SECRET)

    return SafetyFilters(policy, find=find)


@pytest.fixture
def model(tiny_llama_directory: Path) -> Any:
    """Return the tiny llama."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write records as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_training_data_failing_rule_stops_before_anything_is_trained_on(broken, tmp_path, tiny_tokenizer) -> None:
    """The records are refused, and the message holds no word of them."""
    file = write_rows(tmp_path / "d.jsonl", [{"prompt": "a ", "completion": SECRET}])
    audit = SafetyAudit(lambda _: None, stage="data")
    with pytest.raises(CodexError) as caught:
        build_dataset(DataSection(train=file), tiny_tokenizer, broken.apply, audit.record, ["train"])
    assert SECRET not in caught.value.block()


def test_log_lines_failing_rule_writes_no_content_of_nested_values(broken, tmp_path) -> None:
    """Keys, strings in lists and long numbers: each is a marker in the file."""
    with NdjsonWriter(tmp_path / "log.ndjson", redact=broken.redact_value) as log:
        log.write({"kind": "x", "deep": [{SECRET: {"a": [SECRET, 123456789]}}]})
    written = (tmp_path / "log.ndjson").read_text("utf-8")
    assert "[REDACTED:" in written
    assert not re.search(f"{SECRET}|123456789", written)


def test_debug_log_failing_rule_writes_no_content(broken, tmp_path) -> None:
    """A message and a traceback are a marker each."""
    with debug_log(tmp_path / "debug.log", 10_000, 1, broken.redact):
        LOGGER.log(logging.INFO, SECRET)
        LOGGER.warning("%s", SECRET)
    written = (tmp_path / "debug.log").read_text("utf-8")
    assert written.count("[REDACTED:") == 2
    assert SECRET not in written


def test_generation_failing_rule_blocks_prompt_and_answer(broken, model, tiny_tokenizer) -> None:
    """A prompt that cannot be judged is not given to the model; an answer that cannot be judged is not given out."""
    request = GenerationRequest(
        tuple(tiny_tokenizer.encode("Tell me", add_special_tokens=False)), SamplingSettings(max_new_tokens=4)
    )
    for filters in ({"filter_prompt": broken.apply}, {"filter_output": broken.apply}):
        (answer,) = TextGenerator(model, tiny_tokenizer, **filters).generate([request])
        assert (answer.text, answer.token_ids, answer.finish_reason) == ("", (), "blocked")


def test_scoring_failing_rule_scores_empty_texts_and_counts_them(broken, model, tmp_path, tiny_tokenizer) -> None:
    """Neither prediction nor reference stands in the result; both counts say so."""
    file = write_rows(tmp_path / "d.jsonl", [{"prompt": "a ", "completion": SECRET}])
    plain = build_dataset(
        DataSection(test=file),
        tiny_tokenizer,
        SafetyFilters(broken.policy).apply,
        SafetyAudit(lambda _: None, stage="data").record,
        ["test"],
    )
    result = evaluate_model(
        model, tiny_tokenizer, plain.require("test"), metrics=["f1"], max_new_tokens=4, filter_text=broken.apply
    )
    assert [(item.prediction, item.reference) for item in result.predictions] == [("", "")]
    assert (result.redacted_references, result.redacted_prompts) == (1, 1)
    assert result.finish_reasons == {"blocked": 1}


def test_vocabulary_failing_rule_learns_nothing(broken) -> None:
    """A tokenizer is not trained on a text that could not be judged."""
    assert list(_fit_to_learn([SECRET], broken.apply)) == []


def test_evaluate_planted_address_in_reference_and_prediction_is_counted_and_scored_redacted(
    tmp_path, tiny_llama_directory
) -> None:
    """The numbers in results.json are those of the redacted texts, and say how many of them were changed."""
    rows = [{"prompt": "Who? ", "completion": f"Ask {MAIL} now"}, {"prompt": "What? ", "completion": "a lamp"}]
    file = write_rows(tmp_path / "d.jsonl", rows)

    def scored(policy: str, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        config = EvaluateConfig.model_validate(
            {
                "run": {"output_dir": str(tmp_path / name)},
                "model": {"path": str(tiny_llama_directory)},
                "data": {"test": str(file)},
                "eval": {"metrics": ["f1", "exact_match", "loss"], "max_new_tokens": 16},
                "safety": {"policy": policy},
            }
        )
        outcome = evaluate(config, [Target(BASE, None, {})], EvaluateDependencies(emit=lambda _: None))
        directory = outcome.directory / "base"
        lines = (directory / "predictions.ndjson").read_text("utf-8").split("\n")
        return json.loads((directory / "results.json").read_text("utf-8")), [json.loads(line) for line in lines if line]

    results, predictions = scored("default", "one")
    assert (results["redacted_references"], results["redacted_predictions"]) == (1, 0)
    assert predictions[0]["reference"] == "Ask [REDACTED:email] now"
    said = next(found[0] for item in predictions if (found := re.findall(r"[A-Za-z ]{4,}", item["prediction"])))
    policy = tmp_path / "said.yaml"
    email = next(rule for rule in load_policy("default").rules if rule.id == "email")
    rules = [{"id": "said", "kind": "regex", "description": "d", "patterns": [re.escape(said)]}]
    policy.write_text(json.dumps({"version": 1, "rules": [*rules, email.model_dump(mode="json")]}), "utf-8")
    results, changed = scored(str(policy), "two")
    marked = [item for item in changed if "[REDACTED:said]" in item["prediction"]]
    assert results["redacted_predictions"] == len(marked) >= 1
    assert results["redacted_references"] == 1
    assert said not in json.dumps(changed)
    assert MAIL not in json.dumps([results, changed])
