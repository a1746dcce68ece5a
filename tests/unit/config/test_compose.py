"""Composition: which source wins, where each value came from, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.migrations import Migrations, RenamedKey
from codex_ml.config.validate import validate_train
from codex_ml.errors import ConfigError, StopSignal
from codex_ml.io.stopping import STOP


def problems_of(call) -> dict[str, str]:
    """Return key -> what and fix of every problem that a call raises."""
    with pytest.raises(ConfigError) as raised:
        call()
    return {problem.key: f"{problem.what} | {problem.fix}" for problem in raised.value.problems}


@pytest.mark.parametrize("name", ["examples/minimal", "examples/pretrain_base"])
def test_compose_packaged_example_from_any_directory_is_valid(name, tmp_path):
    """The examples need no configuration directory and no particular working directory."""
    config = validate_train(compose("train", name, working_directory=tmp_path, environment={}))
    assert config.data.path is not None
    assert config.data.path.parts[-3:-1] == ("examples", "minimal")
    assert config.run.output_dir == tmp_path / "runs"


def test_compose_option_beside_its_override_is_refused(from_tree):
    """Which of two values was meant is not guessed; taking a value out and giving another is no contradiction."""
    twice = from_tree("whole", "data.path=a.jsonl", extra_values={"data.path": Path("b.jsonl")})
    problem = next(problem for problem in twice.problems if problem.key == "data.path")
    assert "'data.path=a.jsonl' and --data-path both give it" in problem.what
    once = from_tree("whole", "~run.name", extra_values={"run.name": "option"})
    assert once.problems == ()


def test_compose_option_holding_the_grammar_s_own_characters_is_taken_as_it_is(from_tree, tmp_path):
    """Neither Hydra's grammar nor a reference reads what a file is called."""
    name = "a, b=(c) ${run.name} $x #'\"[d]{e}\\${f.jsonl"
    composed = from_tree("whole", extra_values={"data.path": Path(name)})
    assert composed.problems == ()
    assert composed.values["data"]["path"] == str(tmp_path / name)
    assert composed.origins["data.path"] == "--data-path"


def test_compose_every_source_given_the_later_wins(from_tree):
    """Defaults < file < environment < command line < option, each named as the origin."""
    environment = {
        "CODEX_ML_OVERRIDES": json.dumps(
            {"adapter": {"alpha": 32, "dropout": 0.1}, "eval": {"batch_size": 7}, "run": {"name": "env"}}
        )
    }
    composed = from_tree(
        "nested/deep",
        "adapter.dropout=0.2",
        environment=environment,
        extra_values={"run.name": "option"},
    )
    config = validate_train(composed)
    adapter = config.adapter
    assert (adapter.r, adapter.alpha, adapter.dropout, adapter.bias) == (3, 32, 0.2, "none")
    assert config.eval.batch_size == 7
    assert config.run.name == "option"
    origins = composed.origins
    assert origins["adapter.r"] == "mine/adapter/mine.yaml"
    assert origins["adapter.alpha"] == "CODEX_ML_OVERRIDES"
    assert origins["adapter.dropout"] == "command line"
    assert origins["adapter.bias"] == "schema default"
    assert origins["run.name"] == "--name"
    assert origins["model.path"] == "mine/nested/deep.yaml"
    assert origins["training.learning_rate"] == "configs/training/default.yaml"
    assert origins["run.output_dir"] == "working directory"


def test_compose_group_chosen_on_command_line_beats_defaults_list(from_tree):
    """A choice of a file replaces the default choice, and values are laid over it."""
    config = validate_train(from_tree("whole", "adapter=mine", "adapter.alpha=9"))
    assert (config.adapter.r, config.adapter.alpha) == (3, 9)
    assert validate_train(from_tree("whole", "adapter=none")).adapter.kind == "none"
    assert validate_train(from_tree("whole", "tracking=mlflow")).tracking.sinks == ("mlflow",)


def test_compose_file_without_defaults_list_is_filled_by_schema(from_tree):
    """A plain file is enough; what it does not say has the schema's default."""
    composed = from_tree("plain")
    config = validate_train(composed)
    assert config.adapter.r == 4
    assert config.training.micro_batch_size == 8
    assert composed.origins["training.micro_batch_size"] == "schema default"


def test_compose_no_network_set_forces_offline_over_everything(from_tree):
    """NO_NETWORK=1 cannot be undone by a file, the environment or the command line."""
    composed = from_tree("whole", "offline=false", environment={"NO_NETWORK": "1"})
    assert validate_train(composed).offline is True
    assert composed.origins["offline"] == "NO_NETWORK"
    for off in ("", "0"):
        assert validate_train(from_tree("whole", "offline=false", environment={"NO_NETWORK": off})).offline is False


@pytest.mark.parametrize("text", ["{", "[1]", "3", '{"adapter": {"r": NaN}}', "not json"])
def test_compose_environment_overrides_not_an_object_raises(from_tree, text):
    """A broken CODEX_ML_OVERRIDES stops the run instead of being ignored."""
    found = problems_of(lambda: from_tree("whole", environment={"CODEX_ML_OVERRIDES": text}))
    assert "JSON" in found["CODEX_ML_OVERRIDES"]


def test_compose_environment_overrides_are_validated_again(from_tree):
    """Values of the environment pass the same checks as all others."""
    environment = {"CODEX_ML_OVERRIDES": '{"adapter": {"r": 0, "rank": 1}}'}
    found = problems_of(lambda: validate_train(from_tree("whole", environment=environment)))
    assert set(found) == {"adapter.r", "adapter.rank"}


def test_compose_code_named_anywhere_is_refused(from_tree, tree):
    """Neither a file nor an override nor an item of a list can name code to run."""
    (tree / "evil.yaml").write_text(
        "defaults: [/default, _self_]\nmodel: {path: base, _target_: os.system}\ndata: {path: d}\n"
        "eval: {metrics: [{_target_: os.system}]}\n",
        encoding="utf-8",
    )
    found = problems_of(lambda: validate_train(from_tree("evil", "+run._target_=os.getcwd", "_target_=x")))
    assert set(found) == {"model._target_", "eval.metrics", "run._target_", "_target_"}
    assert all("must not name code" in what for what in found.values())


def test_compose_missing_marker_left_is_refused_once(from_tree, tree):
    """`???` asks the user for the value; giving it is enough."""
    (tree / "ask.yaml").write_text("model:\n  path: ???\ndata: {path: d}\n", encoding="utf-8")
    found = problems_of(lambda: validate_train(from_tree("ask")))
    assert list(found) == ["model.path"]
    assert "model.path=VALUE" in found["model.path"]
    assert validate_train(from_tree("ask", "model.path=x")).model.path is not None


def test_compose_unknown_config_name_suggests_and_lists(from_tree):
    """A misspelt name is answered with the nearest and with all names."""
    found = problems_of(lambda: from_tree("examples/minimall"))
    assert "did you mean examples/minimal?" in found["--config-name"]
    assert "whole" in found["--config-name"]


def test_compose_unknown_config_directory_raises(tmp_path):
    """A directory that is not there is named."""
    found = problems_of(lambda: compose("train", "x", tmp_path / "none", environment={}))
    assert str(tmp_path / "none") in found["--config-dir"]


def test_compose_unknown_group_choice_lists_the_options(from_tree):
    """A misspelt choice is answered with the choices, and with how one value is set."""
    found = problems_of(lambda: from_tree("whole", "adapter=lor"))
    assert "did you mean adapter=lora?" in found["adapter"]
    assert "mine" in found["adapter"]
    found = problems_of(lambda: from_tree("whole", "data=records.jsonl"))
    assert "data.KEY=VALUE" in found["data"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("a: [\n b: {", "odd.yaml:2", "not valid YAML"),
        ("run: {}\nrun: {}\n", "odd.yaml:2", "duplicate key"),
        ("a: !!python/object:os.x {}\n", "odd.yaml:1", "not valid YAML"),
        ("- 1\n", "odd.yaml", "no mapping"),
        ("defaults: [/nosuch]\n", "nosuch", "no nosuch.yaml"),
        ("defaults: [/odd, _self_]\n", "odd", "comes back to itself"),
        ("defaults:\n  - adapter: ${oc.env:HOME}\n", "odd.yaml: defaults", "must not hold"),
        ("a: ${b\n", "odd.yaml", ""),
    ],
)
def test_compose_file_broken_names_the_file_and_line(from_tree, tree, text, key, words):
    """A file that cannot be read is one error with its place, never a traceback of a library."""
    (tree / "odd.yaml").write_text(text, encoding="utf-8")
    found = problems_of(lambda: from_tree("odd"))
    assert len(found) == 1
    name, what = next(iter(found.items()))
    assert name.endswith(key)
    assert words in what


def test_compose_defaults_list_with_reference_is_refused(from_tree, tree):
    """A defaults list cannot choose a file by the environment."""
    (tree / "odd.yaml").write_text("defaults: [inner, _self_]\n", encoding="utf-8")
    (tree / "inner.yaml").write_text("defaults:\n  - adapter: lora\n  - model: ${adapter}\n", encoding="utf-8")
    (tree / "model").mkdir()
    (tree / "model" / "lora.yaml").write_text("path: x\n", encoding="utf-8")
    found = problems_of(lambda: from_tree("odd"))
    assert "must not hold" in next(iter(found.values()))


def test_compose_whole_config_below_without_header_explains_it(from_tree):
    """A whole configuration in a subdirectory without its package line is told what to add."""
    found = problems_of(lambda: validate_train(from_tree("nested/bare")))
    assert "# @package _global_" in found["nested"]


def test_compose_hydra_settings_in_a_file_are_unknown_keys(from_tree, tree):
    """Hydra's own section is no part of a configuration, so it cannot change where files are looked for."""
    (tree / "odd.yaml").write_text("hydra: {searchpath: [file:///tmp]}\nmodel: {path: m}\ndata: {path: d}\n")
    assert "hydra" in problems_of(lambda: validate_train(from_tree("odd")))
    assert "hydra" in problems_of(lambda: validate_train(from_tree("whole", "hydra.run.dir=x")))


def test_compose_directories_with_odd_names_are_found(tmp_path):
    """Spaces, quotes and letters beyond ASCII in directory names are no obstacle, for the user's tree and for ours."""
    packaged = tmp_path / 'it\'s (a), "tree" = é' / "configs"
    packaged.mkdir(parents=True)
    (packaged / "default.yaml").write_text("offline: false\n", encoding="utf-8")
    own = tmp_path / "l'été (1)"
    own.mkdir()
    (own / "a b=c.yaml").write_text("defaults: [/default, _self_]\nmodel: {path: m}\ndata: {path: d}\n")
    composed = compose("train", "a b=c", own, packaged=packaged, environment={}, working_directory=tmp_path)
    config = validate_train(composed)
    assert config.offline is False
    assert composed.origins["offline"] == "configs/default.yaml"
    assert config.model.path == own / "m"


def test_compose_older_file_is_migrated_before_overrides(tmp_path):
    """A renamed key of an older file moves with its origin, and the command line still beats it."""
    (tmp_path / "old.yaml").write_text(
        "schema_version: 1\nmodel: {path: m}\ndata: {path: d}\nadapter: {rank: 4}\ntraining: {lr: 1.0}\n"
    )
    migrations = Migrations(
        current=2, renamed=(RenamedKey("adapter.rank", "adapter.r", 2), RenamedKey("training.lr", "training.epochs", 2))
    )
    composed = compose(
        "train",
        "old",
        tmp_path,
        ["training.epochs=3"],
        environment={},
        packaged=tmp_path,
        working_directory=tmp_path,
        migrations=migrations,
    )
    assert composed.problems == ()
    assert composed.values["adapter"] == {"r": 4}
    assert composed.origins["adapter.r"] == "configs/old.yaml"
    assert composed.values["training"] == {"epochs": 3}


def test_compose_default_environment_is_that_of_the_process(tmp_path):
    """Without an environment given, the process's own is read: HOME is there in every test."""
    composed = compose("train", "examples/minimal", working_directory=tmp_path)
    assert composed.values["run"]["name"] == "minimal"


def test_compose_packaged_config_takes_choices_from_the_users_directory(from_tree):
    """Without a file of its own name in --config-dir, a packaged configuration is found, and the user's choices too."""
    composed = from_tree("default", "adapter=mine", "model.path=m", "data.path=d")
    assert (composed.values["adapter"]["r"], composed.values["adapter"]["alpha"]) == (3, 6)


class InterruptingEnvironment(dict[str, str]):
    """An environment during whose reading a signal handler wants to raise."""

    def get(self, name: str, default: str = "") -> str:
        """Note the name, as `dict.get` with no value; a handler calls `StopRequest.leave` meanwhile."""
        self[name] = default
        STOP.leave(signal.SIGTERM)
        return default


def test_compose_stop_signal_is_raised_after_the_composition(tmp_path):
    """An exception in a constructor of OmegaConf would become a configuration error with exit code 2."""
    environment = InterruptingEnvironment()
    with pytest.raises(StopSignal) as stopped:
        compose("train", "default", working_directory=tmp_path, environment=environment)
    assert stopped.value.exit_code == 143
    assert set(environment) == {"CODEX_ML_OVERRIDES", "NO_NETWORK"}
