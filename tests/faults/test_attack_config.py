"""Configurations from a stranger: code, bombs, ways out of the directory; one error, and nothing run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.errors import ConfigError

pytestmark = pytest.mark.timeout(300)
SOUND = "defaults: [/default, _self_]\nmodel: {path: base}\ndata: {path: records.jsonl}\n"
# A guard against work that grows without bound, not a measurement: a sound file takes a hundredth of it.
MOST_CPU_SECONDS = 60.0


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Return what composes and validates a file of a text, must be refused quickly, and gives the whole error."""

    def refused(text: str | bytes, *overrides: str, name: str = "evil", **environment: str) -> str:
        root = tmp_path / "mine"
        root.mkdir(exist_ok=True)
        (root / "evil.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        started = time.process_time()
        with pytest.raises(ConfigError) as caught:
            validate_train(compose("train", name, root, overrides, tmp_path, environment))
        assert time.process_time() - started < MOST_CPU_SECONDS
        return caught.value.block()

    return refused


def _laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def _merged_laughs(levels: int = 30) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, levels)]
    return "\n".join(lines) + "\nmodel:\n  <<: *a29\n"


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [CANARY]",
        "!!python/object/new:os.mkdir [CANARY]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [CANARY]",
        "!mine {a: b}",
    ],
)
def test_yaml_tag_that_makes_objects_is_refused(refusal, tmp_path, value):
    """A tag builds nothing and calls nothing."""
    canary = tmp_path / "canary"
    block = refusal(SOUND + "run: {name: " + value.replace("CANARY", str(canary)) + "}\n")
    assert "evil.yaml" in block
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_laughs(), "more than 10000 values"),
        (_merged_laughs(), "more than 10000 values"),
        ("a: &a [*a]\n", "part of its own expansion"),
        ("a: &a {b: *a}\n", "part of its own expansion"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested deeper"),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, "nested deeper"),
        ("\n".join(" " * n + "a:" for n in range(700)), "nested deeper"),
        ("a: [" + "1, " * 50_000 + "1]", "more than 10000 values"),
        ("a: b\n" * 100_000, "longer than 262144 bytes"),
        ("run: {seed: 0x" + "f" * 50_000 + "}", "hundred digits"),
        ("run: {seed: " + "9" * 5000 + "}", "hundred digits"),
        ("run: {seed: 1" + ":59" * 5000 + "}", "hundred digits"),
        ("run: {name: a, name: b}", "duplicate key"),
        ("run:\n  ? [a, b]\n  : c", "evil.yaml"),
        (b"\xff\xfe\x00r\x00u", "evil.yaml"),
        ("a: *nobody", "evil.yaml"),
        ("- a\n- b\n", "no mapping"),
    ],
    ids=[
        *("laughs", "merged-laughs", "itself-list", "itself-mapping", "deep-lists", "deep-mappings", "deep-blocks"),
        *(
            "long-list",
            "long",
            "hex",
            "decimal",
            "sexagesimal",
            "doubled",
            "list-as-key",
            "utf-16",
            "no-anchor",
            "list",
        ),
    ],
)
def test_yaml_bomb_is_refused_before_it_is_built(refusal, text, words):
    """What expands, nests or counts without end is told by its events."""
    assert words in refusal(text)


def test_huge_file_is_refused_unread(tmp_path, refusal):
    """A file of a terabyte, sparse or not, is told by its size."""
    root = tmp_path / "mine"
    root.mkdir()
    with (root / "huge.yaml").open("wb") as handle:
        handle.truncate(1 << 40)
    assert "longer than" in refusal(SOUND, name="huge")


def test_bomb_in_a_file_of_the_defaults_list_is_refused(tmp_path, refusal):
    """Hydra reads the files that a defaults list names by itself; they are judged before it does."""
    group = tmp_path / "mine" / "adapter"
    group.mkdir(parents=True)
    (group / "bomb.yaml").write_text(_laughs())
    assert "more than 10000 values" in refusal("defaults: [/default, {override /adapter: bomb}, _self_]\n")


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "${oc.env:CODEX_SECRET,none}",
        "x${oc.env:HOME}y",
        "${oc.decode:x}",
        "${oc.create:{a: 1}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "${oc.env:${model.path}}",
        "${model.${oc.env:HOME}}",
        "${.name}",
        "${evil:1}",
    ],
)
def test_resolver_in_a_value_is_refused(refusal, value):
    """No resolver runs, so the environment of a victim does not get into a run's files."""
    block = refusal(SOUND + f"run: {{name: '{value}'}}\n", CODEX_SECRET="s3cr3t-value")
    assert "run.name" in block
    assert "s3cr3t-value" not in block
    assert os.environ.get("HOME", "/nonexistent") not in block.replace(value, "")


@pytest.mark.parametrize("entry", ["'${oc.env:HOME}'", "adapter: '${oc.env:HOME}'", "'/adapter@${oc.env:HOME}': lora"])
def test_resolver_in_a_defaults_list_is_refused(refusal, entry):
    """Hydra would resolve it there."""
    assert "must not hold ${" in refusal(f"defaults: [/default, {entry}, _self_]\n")


@pytest.mark.parametrize(("length", "levels", "words"), [(4000, 6, "characters"), (1, 16, "references")])
def test_references_that_multiply_are_refused(refusal, length, levels, words):
    """References that double a text forty times would make a terabyte; looking them up without text takes as long."""
    doubled = [f"k{n}: '${{data.columns.k{n - 1}}}${{data.columns.k{n - 1}}}'" for n in range(1, levels)]
    # The last one first: a value that is resolved already is not looked through again.
    columns = ", ".join([*reversed(doubled), f"k0: {'x' * length}"])
    block = refusal(SOUND.replace("records.jsonl}", "records.jsonl, columns: {" + columns + "}}"))
    assert "expands to more than" in block
    assert words in block


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("_target_", "{KEY: os.mkdir}"),
        ("_partial_", "run: {KEY: os.mkdir}"),
        ("_args_", "data: {path: r.jsonl, columns: {KEY: os.mkdir}}"),
        ("_target_", "adapter: {target_modules: [{KEY: os.mkdir}]}"),
        ("_recursive_", "adapter: {target_modules: [[{a: [{KEY: os.mkdir}]}]]}"),
        ("_convert_", "run: {a: {b: {c: {d: {KEY: os.mkdir}}}}}"),
    ],
)
def test_target_at_any_depth_is_refused(refusal, key, shape):
    """Hydra's way to name code is refused wherever it stands."""
    assert "must not name code" in refusal(shape.replace("KEY", key))


@pytest.mark.parametrize(
    "values",
    [
        {"run": {"_target_": "os.mkdir"}},
        {"adapter": {"target_modules": [{"_target_": "os.mkdir"}]}},
        {"data": {"columns": {"_partial_": True}}},
    ],
)
def test_target_in_the_environment_is_refused(refusal, values):
    """The environment is laid over the file and judged with it."""
    assert "must not name code" in refusal(SOUND, CODEX_ML_OVERRIDES=json.dumps(values))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"run": {"name": "${oc.env:HOME}"}}', "run.name"),
        ("[" * 100_000, "CODEX_ML_OVERRIDES"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "CODEX_ML_OVERRIDES"),
        ('{"run": {"seed": ' + "9" * 5000 + "}}", "CODEX_ML_OVERRIDES"),
        ('{"run": {"seed": NaN}}', "CODEX_ML_OVERRIDES"),
        ('{"run": {"seed": 1, "seed": 2}}', "CODEX_ML_OVERRIDES"),
    ],
)
def test_bomb_in_the_environment_is_refused(refusal, text, words):
    """Depth, numbers and resolvers in CODEX_ML_OVERRIDES: one error."""
    assert words in refusal(SOUND, CODEX_ML_OVERRIDES=text)


@pytest.mark.parametrize(
    "override",
    [
        "run.name=" + "[" * 3000 + "]" * 3000,
        "+" + "a." * 3000 + "b=1",
        "+run._target_=os.mkdir",
        "run.name=${oc.env:HOME}",
        "hydra/launcher=joblib",
        "hydra.searchpath=[file:///tmp]",
        "+hydra.callbacks.x._target_=os.mkdir",
        "hydra.run.dir=/tmp/elsewhere",
    ],
)
def test_override_that_attacks_is_refused(refusal, override):
    """Overrides are judged like a file."""
    refusal(SOUND, override)


@pytest.mark.parametrize(
    "text",
    [
        "hydra: {searchpath: ['file:///tmp']}\n",
        "hydra: {callbacks: {x: {_target_: os.mkdir}}}\n",
        "hydra: {run: {dir: /tmp/elsewhere}}\n",
        "# @package hydra\nlauncher: {_target_: os.mkdir}\n",
    ],
)
def test_settings_of_hydra_in_a_file_are_refused(refusal, text):
    """No key of Hydra itself takes effect."""
    refusal(text)


def test_settings_of_hydra_in_a_group_are_refused(tmp_path, refusal):
    """Nor does a group of Hydra that the directory brings along."""
    launcher = tmp_path / "mine" / "hydra" / "launcher"
    launcher.mkdir(parents=True)
    (launcher / "evil.yaml").write_text("# @package hydra.launcher\n_target_: os.mkdir\n")
    block = refusal("defaults: [/default, {override hydra/launcher: evil}, _self_]\n")
    assert "hydra" in block.lower()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "..", "evil\0"])
def test_config_name_that_leads_out_is_refused(tmp_path, refusal, name):
    """A name is one below the directory."""
    (tmp_path / "outside.yaml").write_text(SOUND)
    assert "--config-name" in refusal(SOUND, name=name)


@pytest.mark.parametrize(
    "entry", ["../outside", "/../outside", "{adapter: ../../outside}", "{override /adapter: ../../outside}"]
)
def test_defaults_list_that_leads_out_is_refused(tmp_path, refusal, entry):
    """Nor does a defaults list reach a file beside the directory."""
    (tmp_path / "outside.yaml").write_text("# @package _global_\nrun: {name: from-outside}\n")
    (tmp_path / "mine" / "adapter").mkdir(parents=True)
    block = refusal(SOUND.replace("/default,", f"/default, {entry},"))
    assert "outside" in block


@pytest.mark.parametrize("name", ["linked", "evil"])
def test_link_that_leads_out_is_refused(tmp_path, refusal, name):
    """A symbolic link in the directory is no way to a file elsewhere, as the named file or in a defaults list."""
    secret = tmp_path / "elsewhere.yaml"
    secret.write_text(SOUND)
    root = tmp_path / "mine"
    root.mkdir()
    (root / "linked.yaml").symlink_to(secret)
    assert "outside the configuration directory" in refusal("defaults: [linked, _self_]\n", name=name)


def test_pipe_as_config_is_no_file(tmp_path, refusal):
    """A pipe is not waited for."""
    (tmp_path / "mine").mkdir()
    os.mkfifo(tmp_path / "mine" / "pipe.yaml")
    assert "--config-name" in refusal(SOUND, name="pipe")


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", ".hidden", "", "a\nb", "x" * 81, "a b", "ä", "\x1b[2J"])
def test_run_name_with_path_or_control_characters_is_refused(refusal, name):
    """A run's name becomes the name of a directory."""
    block = refusal(SOUND + f"run: {{name: {json.dumps(name)}}}\n")
    assert "run.name" in block
