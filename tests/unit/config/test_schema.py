"""The sections: defaults of the agreed table, strictness, bounds, and the rules across fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from codex_ml.config.messages import describe_schema
from codex_ml.config.schema.adapter import AdapterSection
from codex_ml.config.schema.data import DataSection, SplitSection
from codex_ml.config.schema.eval import EvalSection
from codex_ml.config.schema.logging import LoggingSection
from codex_ml.config.schema.model import ModelSection
from codex_ml.config.schema.root import EvaluateConfig, TrainConfig
from codex_ml.config.schema.run import RunSection
from codex_ml.config.schema.safety import SafetySection
from codex_ml.config.schema.serve import ServeSection
from codex_ml.config.schema.tracking import TrackingSection
from codex_ml.config.schema.training import TrainingSection

COMPLETE = {"model": {"path": "/m"}, "data": {"path": "/d.jsonl"}}


def train(**sections: object) -> TrainConfig:
    """Return a complete configuration with some sections replaced."""
    return TrainConfig.model_validate({**COMPLETE, **sections})


def test_defaults_of_every_key_match_the_agreed_table():
    """The defaults are those of decision 0001; a change there is a change of the interface."""
    defaults = {field.key: field.default for field in describe_schema()}
    assert defaults == {
        "schema_version": 1,
        "offline": True,
        "run.name": "run",
        "run.seed": 0,
        "run.output_dir": None,
        "run.resume_from": None,
        "model.path": None,
        "model.name": None,
        "model.revision": None,
        "model.preset": None,
        "model.tokenizer": None,
        "model.device": "auto",
        "model.batch_layout": "auto",
        "model.dtype": "auto",
        "adapter.kind": "lora",
        "adapter.task_type": "CAUSAL_LM",
        "adapter.r": 8,
        "adapter.alpha": 16,
        "adapter.dropout": 0.0,
        "adapter.bias": "none",
        "adapter.target_modules": "all-linear",
        "data.path": None,
        "data.max_overlap_share": 0.5,
        "data.files": {},
        "data.weights": {},
        "data.train": None,
        "data.valid": None,
        "data.test": None,
        "data.format": "auto",
        "data.columns": {},
        "data.supervise": "all_assistant_turns",
        "data.trust_control_tokens_in_text": False,
        "data.split.ratios": [0.8, 0.1, 0.1],
        "data.split.seed": 0,
        "data.split.group_by": None,
        "data.split.exact_sizes": False,
        "data.max_length_tokens": 1024,
        "data.on_overlong": "error",
        "data.max_line_bytes": 16777216,
        "data.on_bad_record": "error",
        "data.max_bad_share": 0.05,
        "data.cache_dir": "auto",
        "data.cache_min_bytes": 1048576,
        "training.epochs": None,
        "training.max_steps": None,
        "training.micro_batch_size": 8,
        "training.tokens_per_micro_batch": None,
        "training.gradient_accumulation_steps": 1,
        "training.learning_rate": 2e-4,
        "training.weight_decay": 0.0,
        "training.adam_beta1": 0.9,
        "training.adam_beta2": 0.999,
        "training.adam_epsilon": 1e-8,
        "training.schedule": "cosine",
        "training.warmup_steps": 0,
        "training.max_grad_norm": 1.0,
        "training.mixed_precision": "none",
        "training.ema_decay": None,
        "training.gradient_checkpointing": False,
        "training.deterministic": False,
        "training.logging_steps": 10,
        "training.eval_steps": None,
        "training.save_steps": None,
        "training.save_minutes": None,
        "training.keep_last": 2,
        "training.keep_best": 1,
        "training.keep_every_steps": None,
        "training.early_stopping_patience": None,
        "training.early_stopping_min_delta": 0.0,
        "eval.split": "test",
        "eval.metrics": ["bleu", "rouge_l", "f1", "exact_match", "loss", "perplexity"],
        "eval.weights": "auto",
        "eval.batch_size": 32,
        "eval.max_new_tokens": 64,
        "eval.max_records": None,
        "eval.bleu_tokenize": "13a",
        "generation.max_new_tokens": None,
        "generation.temperature": 0.0,
        "generation.top_k": None,
        "generation.top_p": None,
        "generation.stop": [],
        "generation.seed": 0,
        "generation.batch_size": 32,
        "generation.weights": "auto",
        "serve.host": "127.0.0.1",
        "serve.port": 8000,
        "serve.allowed_origins": [],
        "serve.base_name": "base",
        "serve.max_running": 8,
        "serve.max_waiting": 32,
        "serve.max_new_tokens": 1024,
        "serve.max_body_bytes": 1 << 20,
        "serve.head_timeout_seconds": 10.0,
        "serve.body_timeout_seconds": 10.0,
        "serve.request_timeout_seconds": 300.0,
        "serve.send_timeout_seconds": 30.0,
        "serve.grace_seconds": 30.0,
        "safety.enabled": True,
        "safety.policy": "default",
        "safety.pseudonyms": False,
        "safety.bypass_reason": None,
        "tracking.sinks": [],
        "tracking.experiment": "codex-ml",
        "logging.max_bytes": 10_485_760,
        "logging.backup_count": 3,
    }


def test_section_without_values_is_valid_alone():
    """A section can be made by itself; only the whole configuration asks for a model and data."""
    for section in (RunSection, ModelSection, AdapterSection, DataSection, TrainingSection, EvalSection):
        section()
    with pytest.raises(ValidationError, match=r"model\.path: no model is given; data\.path: no data"):
        TrainConfig()


def test_section_changed_after_validation_raises():
    """Nothing can change a configuration after it was validated."""
    with pytest.raises(ValidationError, match="frozen"):
        AdapterSection().r = 4


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (AdapterSection, {"rank": 8}),
        (AdapterSection, {"r": "8"}),
        (AdapterSection, {"r": 8.0}),
        (AdapterSection, {"r": True}),
        (AdapterSection, {"r": 0}),
        (AdapterSection, {"alpha": 0}),
        (AdapterSection, {"dropout": 1.0}),
        (AdapterSection, {"dropout": -0.1}),
        (AdapterSection, {"kind": "qlora"}),
        (AdapterSection, {"target_modules": []}),
        (AdapterSection, {"target_modules": [""]}),
        (AdapterSection, {"target_modules": "q_proj"}),
        (RunSection, {"name": "a/b"}),
        (RunSection, {"name": ""}),
        (RunSection, {"name": "x" * 81}),
        (RunSection, {"seed": -1}),
        (RunSection, {"seed": 2**32}),
        (ModelSection, {"device": "gpu"}),
        (ModelSection, {"device": "cuda:x"}),
        (ModelSection, {"dtype": "float16"}),
        (SafetySection, {"enabled": "yes"}),
        (SafetySection, {"enabled": 1}),
        (TrainingSection, {"learning_rate": 0}),
        (TrainingSection, {"learning_rate": 1.1e9}),
        (TrainingSection, {"learning_rate": "1e-4"}),
        (TrainingSection, {"learning_rate": float("nan")}),
        (TrainingSection, {"learning_rate": float("inf")}),
        (TrainingSection, {"max_steps": 0}),
        (TrainingSection, {"epochs": 1.5}),
        (TrainingSection, {"adam_beta1": 1.0}),
        (TrainingSection, {"max_grad_norm": 0}),
        (TrainingSection, {"keep_last": 0}),
        (TrainingSection, {"schedule": ""}),
        (DataSection, {"max_bad_share": 1.1}),
        (DataSection, {"max_length_tokens": 1}),
        (DataSection, {"columns": {"prompt": 1}}),
        (SplitSection, {"ratios": [0.5, 0.5]}),
        (SplitSection, {"ratios": [1.1, -0.1, 0.0]}),
        (EvalSection, {"metrics": []}),
        (EvalSection, {"metrics": "bleu"}),
        (EvalSection, {"max_new_tokens": 0}),
        (EvalSection, {"bleu_tokenize": "ja-mecab"}),
        (TrackingSection, {"sinks": [""]}),
        (LoggingSection, {"max_bytes": 100}),
    ],
)
def test_value_out_of_type_or_bounds_is_refused(section, values):
    """Strict types and bounds: no coercion of text, of truth values, or of whole floats."""
    with pytest.raises(ValidationError):
        section.model_validate(values)


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        (ModelSection, {"path": "/m", "preset": "llama-tiny", "tokenizer": "/t"}, "model.preset are set together"),
        (ModelSection, {"path": "/m", "name": "a/b"}, "model.path and model.name are set together"),
        (ModelSection, {"name": "a/b", "preset": "p", "tokenizer": "/t"}, "model.name and model.preset are set"),
        (ModelSection, {"path": "/m", "revision": "main"}, "revision chooses among the snapshots of a model.name"),
        (ModelSection, {"name": "a/b", "tokenizer": "/t"}, "only for a preset"),
        (ModelSection, {"preset": "llama-tiny"}, "brings no tokenizer"),
        (ModelSection, {"path": "/m", "tokenizer": "/t"}, "only for a preset"),
        (DataSection, {"path": "/a", "valid": "/b"}, r"data\.valid \(split already\) are both set"),
        (DataSection, {"path": "/a", "files": {"a": "/a"}}, r"data\.files \(several\) are both set"),
        (DataSection, {"files": {"a": "/a"}, "split": {"exact_sizes": True}}, "cut file by file"),
        (DataSection, {"files": {"a": "/a"}, "weights": {"b": 2.0}}, r"b names no file of data\.files"),
        (DataSection, {"train": "/a", "split": {"group_by": "g"}}, r"data\.train\): it would do nothing"),
        (DataSection, {"test": "/a", "split": {"exact_sizes": True}}, r"split\.exact_sizes: data\.split divides"),
        (SplitSection, {"ratios": [0.8, 0.1, 0.2]}, "sum to 1.1, not to 1"),
        (SplitSection, {"ratios": [0.0, 0.5, 0.5]}, "share of train is 0"),
        (TrainingSection, {"epochs": 1, "max_steps": 2}, "both set"),
        (TrainingSection, {"warmup_steps": 5, "max_steps": 5}, r"rise over 5 steps, and training ends after 5"),
        (TrainingSection, {"early_stopping_patience": 1}, r"eval_steps is null"),
        (SafetySection, {"enabled": False}, "needs a written reason"),
        (SafetySection, {"enabled": False, "bypass_reason": "  "}, "needs a written reason"),
        (SafetySection, {"bypass_reason": "why"}, "they are on"),
        (SafetySection, {"enabled": False, "bypass_reason": "why", "pseudonyms": True}, "numbered, but the filters"),
        (EvalSection, {"metrics": ["f1", "f1"]}, "named twice: f1"),
        (TrackingSection, {"sinks": ["mlflow", "mlflow"]}, "named twice"),
    ],
)
def test_rule_across_fields_broken_is_refused(section, values, text):
    """Values that are fine one by one and contradict each other are refused, with the reason."""
    with pytest.raises(ValidationError, match=text):
        section.model_validate(values)


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "meta-llama/Llama-3.2-1B", "a_b/c--d.e"])
def test_model_name_of_the_hub_is_taken(name):
    """With and without an organisation."""
    assert ModelSection(name=name, revision="refs/pr/1").name == name


@pytest.mark.parametrize(
    "text", ["", "/etc", "../x", "a/../b", "a/b/c", "a b", "a/.b", "a/b.", "~/m", "a\\b", "./a", "a/b\n"]
)
def test_model_name_that_could_be_a_path_is_refused(text):
    """No name and no revision leads out of the cache directory."""
    with pytest.raises(ValidationError):
        ModelSection(name=text)
    if text != "a/b/c":
        with pytest.raises(ValidationError):
            ModelSection(name="a/b", revision=text)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"model": {"preset": "llama-tiny", "tokenizer": "/t"}}, "would leave them random"),
        ({"data": {"test": "/t.jsonl"}}, "no data to train on"),
        ({"data": {"train": "/t.jsonl"}, "training": {"eval_steps": 5}}, "valid split, which has no data"),
        ({"data": {"path": "/d", "split": {"ratios": [1, 0, 0]}}, "training": {"eval_steps": 5}}, "has no data"),
        ({"schema_version": 2}, "less than or equal to 1"),
    ],
)
def test_train_config_sections_contradict_is_refused(sections, text):
    """Rules across sections hold for the whole training configuration."""
    with pytest.raises(ValidationError, match=text):
        train(**sections)


def test_train_config_values_keep_their_types():
    """Paths become paths, lists tuples, and an integer may stand for a float."""
    config = train(
        training={"learning_rate": 1, "max_steps": 3},
        adapter={"target_modules": ["q_proj", "v_proj"]},
        run={"resume_from": "latest"},
    )
    assert config.model.path == Path("/m")
    assert config.training.learning_rate == 1.0
    assert config.adapter.target_modules == ("q_proj", "v_proj")
    assert config.run.resume_from == "latest"
    assert train(run={"resume_from": "/c"}).run.resume_from == Path("/c")
    assert train(model={"preset": "p", "tokenizer": "/t"}, adapter={"kind": "none"}).model.preset == "p"


def test_train_config_dumped_as_json_loads_again():
    """A configuration is plain JSON and nothing else, so it can stand in a checkpoint."""
    config = train(run={"resume_from": "/c"}, adapter={"target_modules": ["q"]})
    assert TrainConfig.model_validate(json.loads(config.model_dump_json())) == config


def test_evaluate_config_sections_are_those_of_training_without_training():
    """An evaluation reads the run's own model, data, eval and safety, so a run's config file holds all it needs."""
    assert set(EvaluateConfig.model_fields) == set(TrainConfig.model_fields) - {
        "adapter",
        "training",
        "generation",
        "serve",
    }


@pytest.mark.parametrize(
    ("data", "split", "valid"),
    [
        ({"path": "/d"}, "test", True),
        ({"path": "/d", "split": {"ratios": [0.9, 0.1, 0]}}, "test", False),
        ({"path": "/d", "split": {"ratios": [0.9, 0.1, 0]}}, "valid", True),
        ({"train": "/t"}, "test", False),
        ({"train": "/t"}, "train", True),
        ({"test": "/t"}, "test", True),
    ],
)
def test_evaluate_config_split_must_have_data(data, split, valid):
    """An evaluation of a split that holds nothing is refused before it starts."""
    values = {"model": {"path": "/m"}, "data": data, "eval": {"split": split}}
    if valid:
        assert EvaluateConfig.model_validate(values).data.has_split(split)
    else:
        with pytest.raises(ValidationError, match=rf"eval\.split={split}, but"):
            EvaluateConfig.model_validate(values)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (TrainingSection, {"learning_rate": 1e6}),
        (TrainingSection, {"warmup_steps": 4, "max_steps": 5}),
        (TrainingSection, {"warmup_steps": 500, "epochs": 1}),
        (DataSection, {"train": "/a", "split": {"seed": 4, "ratios": [1.0, 0.0, 0.0]}}),
        (DataSection, {"path": "/a", "split": {"group_by": "g", "exact_sizes": True}}),
        (DataSection, {"split": {"group_by": "g"}}),
    ],
)
def test_value_just_within_a_rule_is_taken(section, values):
    """The rules refuse what cannot work or does nothing, and not what stands beside it."""
    section.model_validate(values)


def test_bleu_tokenizers_are_those_that_the_metric_takes():
    """What the schema offers, the metric can do without a download or another package."""
    from typing import get_args

    from codex_ml.eval.text_metrics import BLEU_TOKENIZERS

    assert set(get_args(EvalSection.model_fields["bleu_tokenize"].annotation)) == set(BLEU_TOKENIZERS)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://a.example", "http://[::1]:8080", "tauri://localhost", "app://x_y.z-1"]
)
def test_serve_origin_as_a_browser_writes_it_is_valid(origin):
    """Any scheme, a host name or an address, and a port other than the default."""
    assert ServeSection(allowed_origins=[origin]).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "", "localhost:3000", "http://A.example", "http://a.example/", "http://a.example\n"),
        *("http://a b", "http://a.example:80", "https://a.example:443", "http://user@a.example", "http://*.example"),
    ],
)
def test_serve_origin_that_no_browser_sends_is_refused(origin):
    """Such a value matches no page, or every page."""
    with pytest.raises(ValidationError, match="allowed_origins"):
        ServeSection(allowed_origins=[origin])
