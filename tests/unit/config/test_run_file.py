"""The configuration of a run, written into its directory and read again from anywhere."""

from __future__ import annotations

import shutil

import pytest
import yaml

from codex_ml.config.compose import compose
from codex_ml.config.run_file import compose_from_run_file, write_run_config
from codex_ml.config.schema.root import EvaluateConfig, TrainConfig
from codex_ml.config.validate import validate_evaluate, validate_file, validate_train
from codex_ml.errors import ConfigError


def test_run_file_written_and_loaded_is_the_same(from_tree, tmp_path):
    """What was written composes to the very same configuration, by file and by name."""
    config = validate_train(from_tree("nested/deep", "safety.policy=p.yaml", "adapter.target_modules=[q,v]"))
    run = tmp_path / "runs" / "20260101T000000Z-run"
    run.mkdir(parents=True)
    write_run_config(config, run / "config.yaml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = validate_train(
        compose_from_run_file("train", run / "config.yaml", working_directory=elsewhere, environment={})
    )
    assert again == config
    named = compose("train", "config", run, environment={}, working_directory=elsewhere)
    assert validate_train(named) == config
    assert validate_file(run / "config.yaml").config == config


def test_run_file_of_a_resumed_run_starts_anew_when_used_again(from_tree, tmp_path):
    """What the last process went on from is no part of the configuration that is written."""
    config = validate_train(from_tree("nested/deep", "run.resume_from=old"))
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    write_run_config(config, run / "config.yaml")
    again = validate_train(compose_from_run_file("train", run / "config.yaml", working_directory=run, environment={}))
    assert again.run.resume_from is None


def test_run_file_paths_are_relative_to_the_run(from_tree, tmp_path):
    """No path of the machine stands in the file: the tree can be moved as a whole."""
    config = validate_train(from_tree("whole"))
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    write_run_config(config, run / "config.yaml")
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert yaml.safe_load(text)["model"]["path"] == "../../mine/base"
    assert yaml.safe_load(text)["safety"]["policy"] == "default"
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "runs", moved / "runs")
    again = validate_train(compose_from_run_file("train", moved / "runs" / "r" / "config.yaml", environment={}))
    assert again.model.path == moved / "mine" / "base"


def test_run_file_overrides_beat_it_and_evaluate_reads_it(from_tree, tmp_path):
    """An evaluation takes the run's own configuration, with values of the command line over it."""
    write_run_config(validate_train(from_tree("plain")), tmp_path / "config.yaml")
    composed = compose_from_run_file(
        "evaluate",
        tmp_path / "config.yaml",
        ["eval.max_new_tokens=3"],
        environment={},
        extra_values={"eval.batch_size": 2},
    )
    config = validate_evaluate(composed)
    assert isinstance(config, EvaluateConfig)
    assert (config.eval.max_new_tokens, config.eval.batch_size) == (3, 2)


def test_run_file_texts_that_look_like_other_types_stay_text(tmp_path):
    """Names such as 1e3, null or 2026-01-01 come back as text."""
    for name in ("1e3", "null", "2026-01-01", "007", "1_000", "0x1f", "true", "1.5"):
        config = TrainConfig.model_validate({"model": {"path": "/m"}, "data": {"path": "/d"}, "run": {"name": name}})
        write_run_config(config, tmp_path / "config.yaml")
        again = validate_train(compose_from_run_file("train", tmp_path / "config.yaml", environment={}))
        assert again.run.name == name


def test_run_file_absent_raises(tmp_path):
    """A run without a configuration is named."""
    with pytest.raises(ConfigError) as raised:
        compose_from_run_file("train", tmp_path / "config.yaml", environment={})
    assert str(tmp_path) in raised.value.problems[0].key
