"""`codex-ml validate` as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

from codex_ml.cli.validate import main
from codex_ml.config.schema.training import TrainingSection


def test_validate_group_file_prints_what_is_valid(repository_root, capsys):
    """The command of the requirement: a default file is valid as its section."""
    assert main(["--config", str(repository_root / "configs" / "training" / "default.yaml")]) == 0
    output = capsys.readouterr().out
    assert output.startswith("valid: ")
    assert f"(the section training, {len(TrainingSection.model_fields)} values)" in output


def test_validate_named_config_takes_overrides(tmp_path, capsys):
    """By name, overrides and an own directory take part."""
    (tmp_path / "own.yaml").write_text("defaults: [/default, _self_]\nmodel: {path: m}\n", encoding="utf-8")
    assert main(["--config-dir", str(tmp_path), "--config-name", "own", "data.path=d"]) == 0
    assert "valid: own (a whole configuration, " in capsys.readouterr().out
    assert main(["--config-dir", str(tmp_path), "--config-name", "own"]) == 2
    assert "data.path: no data to train on" in capsys.readouterr().err


def test_validate_bad_file_prints_every_problem_and_exits_2(tmp_path, capsys):
    """All problems on stderr, nothing on stdout."""
    file = tmp_path / "training" / "bad.yaml"
    file.parent.mkdir()
    file.write_text("lerning_rate: 1\nmax_steps: 0\n", encoding="utf-8")
    assert main(["--config", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the configuration has 2 problems" in captured.err
    assert "did you mean training.learning_rate?" in captured.err
    assert "training.max_steps: must be greater than or equal to 1, got 0" in captured.err


def test_validate_wrong_usage_exits_2(tmp_path, capsys):
    """Neither, both, an unknown option, or an override that would do nothing."""
    file = tmp_path / "adapter" / "a.yaml"
    file.parent.mkdir()
    file.write_text("r: 1\n", encoding="utf-8")
    assert main([]) == 2
    assert main(["--config", str(file), "--config-name", "x"]) == 2
    assert main(["--config", str(file), "adapter.r=3"]) == 2
    assert main(["--confg", str(file)]) == 2
    assert "No such option" in capsys.readouterr().err


def test_validate_as_a_module_imports_no_heavy_library(repository_root):
    """The validator runs by itself and stays quick: no torch, no transformers."""
    program = (
        "import sys; from codex_ml.cli.validate import main; "
        "code = main(['--config', 'configs/examples/minimal.yaml']); "
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'mlflow'} & set(sys.modules); "
        "sys.exit(f'heavy: {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository_root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    as_module = [sys.executable, "-m", "codex_ml.cli.validate", "--config", "configs/training/default.yaml"]
    done = subprocess.run(as_module, cwd=repository_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_validate_names_of_installed_plugins_are_valid_and_not_imported(tmp_path):
    """The entry points of an installed package name a schedule, a metric and a sink; its module does not exist."""
    package = tmp_path / "plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n", "utf-8")
    groups = {"schedules": "steps", "metrics": "meteor", "sinks": "own_tracker"}
    points = "".join(f"[codex_ml.{group}]\n{name} = no_such_module:X\n" for group, name in groups.items())
    (package / "entry_points.txt").write_text(points, "utf-8")
    config = tmp_path / "own.yaml"
    config.write_text(
        "model: {path: base}\ndata: {path: records.jsonl}\n"
        "training: {schedule: steps}\neval: {metrics: [loss, meteor]}\ntracking: {sinks: [own_tracker]}\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "codex_ml.cli.validate", "--config", str(config)]
    for path, code in ((str(tmp_path), 0), (str(tmp_path / "elsewhere"), 2)):
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done.stderr
    for name in groups.values():
        assert f"'{name}'" in done.stderr
