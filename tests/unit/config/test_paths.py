"""Relative paths resolve where they were written, and what is missing is found before anything is loaded."""

from __future__ import annotations

import pytest

from codex_ml.config.paths import PATH_FIELDS, check_paths
from codex_ml.config.run_file import compose_from_run_file, write_run_config
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_train
from codex_ml.errors import ConfigError


def test_path_fields_are_all_marked():
    """Every key that names a file or directory takes part in resolving."""
    assert set(PATH_FIELDS) == {
        "run.output_dir",
        "run.resume_from",
        "model.path",
        "model.tokenizer",
        "data.path",
        "data.files",
        "data.train",
        "data.valid",
        "data.test",
        "data.cache_dir",
        "safety.policy",
    }


def test_paths_of_several_files_resolve_each_where_it_was_given(from_tree, tree, tmp_path):
    """A mapping of names to paths is one path for each name, in a file, in an override, and in a run's own config."""
    (tree / "several.yaml").write_text(
        "# @package _global_\nmodel: {path: base}\ndata: {files: {notes: raw/a.jsonl, web: b.jsonl}}\n",
        encoding="utf-8",
    )
    composed = from_tree("several", "data.files.web=elsewhere/b.jsonl", "+data.files.more=c.jsonl")
    config = validate_train(composed)
    expected = {
        "notes": tree / "raw" / "a.jsonl",
        "web": tmp_path / "elsewhere" / "b.jsonl",
        "more": tmp_path / "c.jsonl",
    }
    assert config.data.files == expected
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    write_run_config(config, run / "config.yaml")
    assert str(tmp_path) not in (run / "config.yaml").read_text(encoding="utf-8")
    again = validate_train(compose_from_run_file("train", run / "config.yaml", environment={}))
    assert again.data.files == expected
    with pytest.raises(ConfigError) as raised:
        check_paths(config)
    assert {"data.files.notes", "data.files.web", "data.files.more"} <= {
        problem.key for problem in raised.value.problems
    }


def test_paths_of_several_files_name_that_is_none_is_refused(from_tree, tree):
    """Names become keys and stand in accounts."""
    (tree / "several.yaml").write_text(
        "# @package _global_\nmodel: {path: base}\ndata: {files: {'a.b c': a.jsonl}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as raised:
        validate_train(from_tree("several"))
    assert raised.value.problems[0].key == "data.files"


def test_paths_in_a_file_resolve_against_that_file(from_tree, tree):
    """Each file is the start of its own paths, also when another file includes it."""
    (tree / "model").mkdir()
    (tree / "model" / "there.yaml").write_text("path: weights\n", encoding="utf-8")
    composed = from_tree("whole", "model=there")
    assert composed.values["model"]["path"] == str(tree / "base"), "the whole file stands over the group's file"
    assert from_tree("nested/deep").values["data"]["path"] == str(tree / "records.jsonl")


def test_paths_elsewhere_resolve_against_the_working_directory(from_tree, tmp_path):
    """Command line, environment and options start where the command was typed."""
    composed = from_tree(
        "whole",
        "model.path=../m",
        environment={"CODEX_ML_OVERRIDES": '{"data": {"path": "d.jsonl"}}'},
        extra_values={"run.resume_from": "runs/x"},
    )
    assert composed.values["model"]["path"] == str(tmp_path.parent / "m")
    assert composed.values["data"]["path"] == str(tmp_path / "d.jsonl")
    assert composed.values["run"]["resume_from"] == str(tmp_path / "runs" / "x")
    assert composed.origins["run.resume_from"] == "--resume-from"
    assert composed.values["run"]["output_dir"] == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("safety.policy", "strict", "strict"),
        ("safety.policy", "strict.yaml", "{here}/strict.yaml"),
        ("safety.policy", "policies/strict", "{here}/policies/strict"),
        ("run.resume_from", "latest", "latest"),
        ("run.resume_from", "./latest", "{here}/latest"),
        ("run.resume_from", "a (1) = b, c", "{here}/a (1) = b, c"),
        ("model.path", "/abs/../olute", "/olute"),
        ("model.path", "~/m", "/home/me/m"),
        ("model.path", "~other/m", "{here}/~other/m"),
    ],
)
def test_paths_words_names_and_odd_characters(from_tree, tmp_path, key, value, expected):
    """Words and packaged names are no paths; an option's value needs no quoting."""
    composed = from_tree("whole", extra_values={key: value}, environment={"HOME": "/home/me"})
    section, name = key.split(".")
    assert composed.values[section][name] == expected.format(here=tmp_path)


def test_path_field_that_is_no_text_is_left_for_the_validation(from_tree):
    """A number where a path belongs is an ordinary problem, not a crash."""
    with pytest.raises(ConfigError) as raised:
        validate_train(from_tree("whole", "model.path=3", "run=4"))
    assert {problem.key for problem in raised.value.problems} >= {"model.path"}


def config_of(**sections: object) -> TrainConfig:
    """Return a configuration with absolute paths."""
    return TrainConfig.model_validate(sections)


def test_check_paths_all_there_passes(tmp_path):
    """Nothing is raised when everything named exists."""
    (tmp_path / "m").mkdir()
    (tmp_path / "p.yaml").touch()
    (tmp_path / "d.jsonl").touch()
    check_paths(
        config_of(
            model={"path": str(tmp_path / "m")},
            data={"train": str(tmp_path / "d.jsonl"), "valid": str(tmp_path / "d.jsonl")},
            safety={"policy": str(tmp_path / "p.yaml")},
            run={"resume_from": "latest", "output_dir": str(tmp_path / "new")},
        )
    )


def test_check_paths_everything_missing_is_reported_at_once(tmp_path):
    """Each missing path says what was looked for, and what is there."""
    (tmp_path / "model-a").mkdir()
    (tmp_path / "file").touch()
    config = config_of(
        model={"path": str(tmp_path / "model-b" / "deep")},
        data={"path": str(tmp_path / "model-a")},
        safety={"policy": str(tmp_path / "p.yaml")},
        run={"resume_from": str(tmp_path / "none"), "output_dir": str(tmp_path / "file")},
    )
    with pytest.raises(ConfigError) as raised:
        check_paths(config)
    found = {problem.key: f"{problem.what} | {problem.fix}" for problem in raised.value.problems}
    assert set(found) == {"run.resume_from", "model.path", "data.path", "safety.policy", "run.output_dir"}
    assert f"did you mean {tmp_path / 'model-a'}?" in found["model.path"]
    assert f"{tmp_path} holds: file, model-a" in found["model.path"]
    assert "is a directory, and a data file is needed" in found["data.path"]
    assert "is a file, and a directory is needed" in found["run.output_dir"]


def test_check_paths_model_that_is_a_file_is_refused(tmp_path):
    """A model is a directory; a file in its place is named as such."""
    (tmp_path / "m").touch()
    (tmp_path / "d").touch()
    with pytest.raises(ConfigError) as raised:
        check_paths(config_of(model={"path": str(tmp_path / "m")}, data={"path": str(tmp_path / "d")}))
    assert "is a file, and a model directory is needed" in raised.value.problems[0].what
