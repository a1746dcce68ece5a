"""Interrupted equals uninterrupted, through the command line: at every border, with all that a resume may change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Commands = Any  # the classes live in conftest.py, which cannot be imported by name
STEPS, STEPS_PER_EPOCH = 16, 7


def test_straight_run_crosses_borders_and_draws(straight):
    """The run that all others are compared with has epochs with a smaller last window, dropout, and a best step."""
    plan = next(event for event in straight.lines("events.ndjson") if event["kind"] == "plan")
    assert plan["steps_per_epoch"] == STEPS_PER_EPOCH
    assert plan["records"] % 8 != 0
    assert straight.steps() == list(range(1, STEPS + 1))
    assert set(straight.metrics("valid", "loss")) == {4, 8, 12, 16}


@pytest.mark.parametrize(
    ("step", "border"),
    [(3, "in mid-epoch"), (STEPS_PER_EPOCH, "epoch"), (6, "before the partial window"), (4, "at a validation")],
)
def test_resume_at_any_border_equals_straight_run(commands, straight, copies, step, border):
    """Every file of the last checkpoint, and every value that was measured, is that of the run that went on."""
    run = copies.interrupted(straight, step)
    finished = commands.train(run.directory.parent.parent, "--resume-from", "latest")
    assert f"from step-{step:08d}" in finished.stderr, border
    assert run.files() == straight.files()
    assert run.measured() == straight.measured()
    for pointer in ("latest", "best"):
        name = f"checkpoints/{pointer}"
        assert (run.directory / name).read_text() == (straight.directory / name).read_text(), pointer


def test_resume_from_older_checkpoint_sets_later_aside_and_equals_straight_run(commands, straight, copies):
    """The later ones are kept apart, and what is computed again in their place is the same."""
    run = copies.whole(straight)
    finished = commands.train(run.directory.parent.parent, "--resume-from", str(run.checkpoint(5)))
    assert "set aside" in finished.stderr
    (aside,) = (run.directory / "checkpoints").glob("abandoned-*")
    assert len(list(aside.iterdir())) == STEPS - 5
    assert run.files() == straight.files()
    assert run.measured() == straight.measured()


@pytest.mark.full("resume")
def test_resume_with_everything_changed_that_may_change_ends_in_the_same_weights(commands, straight, copies):
    """Logging, evaluation, saving, retention, trackers, memory: none of it is part of what is computed."""
    run = copies.interrupted(straight, 9)
    commands.train(
        run.directory.parent.parent,
        "training.gradient_checkpointing=true",
        "training.logging_steps=5",
        "training.eval_steps=null",
        "training.save_steps=3",
        "training.keep_last=1",
        "training.keep_best=0",
        "eval.batch_size=3",
        "eval.metrics=[loss]",
        "tracking.experiment=other",
        "logging.max_bytes=2048",
        "data.max_bad_share=0.5",
        "--resume-from",
        str(run.directory),
    )
    assert run.weights() == straight.weights()
    assert run.files()["training_state.safetensors"] == straight.files()["training_state.safetensors"]


@pytest.mark.full("resume")
def test_resume_finished_run_with_more_steps_equals_straight_longer_run(commands, tmp_path):
    """With a constant schedule the length is no part of any step, so an extended run is the longer one."""
    settings = ["training.schedule=constant", "training.eval_steps=null"]
    directories = [tmp_path / name for name in ("longer", "extended")]
    for directory in directories:
        directory.mkdir()
    longer = commands.trained(directories[0], *settings, "training.max_steps=9")
    commands.train(directories[1], *settings, "training.max_steps=5")
    finished = commands.train(directories[1], *settings, "training.max_steps=9", "--resume-from", "latest")
    assert "9 steps instead of 5" in finished.stderr
    (extended,) = (directories[1] / "runs").glob("*-run")
    extended = type(longer)(extended)
    assert extended.files(9) == longer.files(9)
    assert extended.measured() == longer.measured()


def test_resume_keeps_the_counters_of_early_stopping_and_the_best_step(commands, tmp_path, copies):
    """Interrupted between two validations without improvement, a run stops at the same step with the same counts."""
    settings = [
        "training.eval_steps=2",
        "training.early_stopping_patience=3",
        # Nothing improves by so much, so that every validation after the first counts against patience.
        "training.early_stopping_min_delta=99",
    ]
    elsewhere = tmp_path / "straight"
    elsewhere.mkdir()
    straight = commands.trained(elsewhere, *settings)
    assert straight.steps()[-1] == 8
    for step in (5, 6):
        run = copies.interrupted(straight, step)
        finished = commands.train(tmp_path, *settings, "--resume-from", "latest")
        assert "stopped early" in finished.stdout
        assert run.files(8) == straight.files(8)
        state = json.loads(run.files(8)["trainer_state.json"])["trainer"]
        assert state["evaluations_without_improvement"] == 3
        assert (run.directory / "checkpoints/best").read_text() == (straight.directory / "checkpoints/best").read_text()
        shutil.rmtree(run.directory)


def _snapshot(run: Any) -> dict[str, bytes]:
    """Return the bytes of every file of a run."""
    files = sorted(path for path in run.directory.rglob("*") if path.is_file())
    return {str(path.relative_to(run.directory)): path.read_bytes() for path in files}


def _altered_model(model: Path, target: Path, part: str) -> Path:
    """Return a copy of a model with one part of it changed, which still loads."""
    shutil.copytree(model, target)
    if part == "tokenizer":
        settings = json.loads((target / "tokenizer_config.json").read_text("utf-8"))
        settings["padding_side"] = "left"
        (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return target
    weights = target / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1  # one bit of the mantissa of the last weight
    weights.write_bytes(bytes(content))
    return target


def _altered_file(source: Path, target: Path, old: str, new: str) -> Path:
    text = source.read_text("utf-8")
    assert old in text
    target.write_text(text.replace(old, new, 1), encoding="utf-8")
    return target


def _other_settings(commands: Commands, directory: Path) -> tuple[list[str], list[str]]:
    del commands, directory
    return ["run.seed=1", "adapter.r=4", "safety.enabled=false", "safety.bypass_reason=test"], [
        "run.seed: 0 there, 1 now",
        "adapter.r: 8 there, 4 now",
        "safety.enabled: True there, False now",
        "safety.bypass_reason: None there, 'test' now",
    ]


def _other_data(commands: Commands, directory: Path) -> tuple[list[str], list[str]]:
    file = _altered_file(commands.data, directory / "other.jsonl", "of course", "of coarse")
    return [f"data.path={file}"], ["data_digest: ", "data_token_digest: "]


def _other_base(commands: Commands, directory: Path) -> tuple[list[str], list[str]]:
    return [f"model.path={_altered_model(commands.model, directory / 'm', 'weights')}"], ["base_model_digest: "]


def _other_tokenizer(commands: Commands, directory: Path) -> tuple[list[str], list[str]]:
    return [f"model.path={_altered_model(commands.model, directory / 'm', 'tokenizer')}"], ["tokenizer_digest: "]


def _other_policy(commands: Commands, directory: Path) -> tuple[list[str], list[str]]:
    del commands
    from codex_ml.config.paths import packaged_directory

    packaged = packaged_directory("configs") / "safety/policies/default.yaml"
    file = _altered_file(packaged, directory / "policy.yaml", "- internal use only", "- for our own use only")
    return [f"safety.policy={file}"], ["safety_policy_digest: "]


@pytest.mark.parametrize(
    "alter",
    [_other_settings, _other_data, _other_base, _other_tokenizer, _other_policy],
    ids=["settings", "data", "base", "tokenizer", "policy"],
)
def test_resume_as_another_run_is_refused_with_both_values_and_leaves_all_as_it_was(
    commands, straight, copies, tmp_path, alter
):
    """Another seed, adapter, data set, tokenizer, base, policy: named, as it was and is; exit 2, nothing written."""
    run = copies.interrupted(straight, 9)
    overrides, expected = alter(commands, tmp_path)
    before = _snapshot(run)
    finished = commands.train(tmp_path, *overrides, "--resume-from", str(run.directory), fails=True)
    assert finished.returncode == 2
    for text in expected:
        assert text in finished.stderr
    # Only what was changed is named.
    assert finished.stderr.count(" there, ") == len(expected)
    assert "what a resume may change: " in finished.stderr
    assert "training.max_steps" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert _snapshot(run) == before


def test_resume_from_another_directory_with_relative_paths_and_threads_goes_on_and_warns(
    command_line, commands, straight, copies, tmp_path
):
    """A config with paths relative to itself, a run named relative to where one stands, more threads than before."""
    run = copies.interrupted(straight, 14)
    mine, elsewhere = tmp_path / "mine", tmp_path / "else" / "where"
    mine.mkdir()
    elsewhere.mkdir(parents=True)
    shutil.copy(run.directory / "config.yaml", mine / "again.yaml")
    text = (mine / "again.yaml").read_text("utf-8")
    for file in (commands.model, commands.data):
        # The run's own config names them relative to where the run stood first.
        text = text.replace(os.path.relpath(file, straight.directory), os.path.relpath(file, mine))
    text = text.replace("output_dir: ..", "output_dir: ../runs")
    (mine / "again.yaml").write_text(text, encoding="utf-8")
    finished = command_line.run(
        "train",
        "--config-dir",
        "../../mine",
        "--config-name",
        "again",
        "--resume-from",
        f"../../runs/{run.directory.name}",
        directory=elsewhere,
        OMP_NUM_THREADS="2",
        MKL_NUM_THREADS="2",
    )
    assert finished.returncode == 0, finished.stderr
    assert "from step-00000014" in finished.stderr
    assert "threads.torch: 1 -> 2" in finished.stderr
    assert run.steps()[-1] == STEPS
    assert not (elsewhere / "runs").exists()
    changed = [event for event in run.lines("events.ndjson") if event["kind"] == "provenance_changed"]
    assert len(changed) == 1
