"""What changes no number of a run, and what does: intervals, memory, retention, batch shape, seeds; by command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# So small that a step changes no bit: the matrices that start at zero stay there, and the adapter that of step 0.
NO_STEP = "training.learning_rate=1e-300"


@pytest.mark.parametrize(
    ("save", "evaluate", "log"),
    [(3, 4, 5), (1, 1, 1), (7, 7, 7), (100, 100, 100)],
    ids=["apart", "each", "last", "past"],
)
def test_every_nth_step_is_honoured_in_the_only_epoch(commands, tmp_path, save, evaluate, log):
    """Whether or not the interval divides the seven steps; the last one is always logged, judged and saved."""
    run = commands.trained(
        tmp_path,
        "training.max_steps=null",
        "training.epochs=1",
        f"training.save_steps={save}",
        f"training.eval_steps={evaluate}",
        f"training.logging_steps={log}",
        "training.keep_best=0",
    )
    every = range(1, 8)
    judged = [step for step in every if step % evaluate == 0 or step == 7]
    assert run.steps() == [step for step in every if step % save == 0 or step == 7]
    assert list(run.metrics("valid", "loss")) == judged
    assert list(run.metrics("train", "loss")) == [step for step in every if step % log == 0 or step in judged]


def test_gradient_checkpointing_and_determinism_on_equal_off(commands, straight, tmp_path):
    """With dropout, every file of the checkpoint and every value is the same; what was chosen is said and recorded."""
    finished = commands.train(tmp_path, "training.gradient_checkpointing=true", "training.deterministic=true")
    run = type(straight)(next((tmp_path / "runs").glob("*-run")))
    same = {name: content for name, content in run.files().items() if name != "trainer_state.json"}
    assert same == {name: straight.files()[name] for name in same}
    here, there = (json.loads(each.files()["trainer_state.json"]) for each in (run, straight))
    assert here["fingerprint"].pop("training.deterministic") is True
    assert there["fingerprint"].pop("training.deterministic") is False
    assert here == there
    assert run.measured() == straight.measured()
    assert "gradient checkpointing: saves" in finished.stderr
    compute = json.loads((run.directory / "provenance.json").read_text("utf-8"))["compute"]
    assert compute["gradient_checkpointing"] is True
    assert compute["kernels"] | {"attention": "sdpa", "deterministic": True, "refused": []} == compute["kernels"]
    (event,) = (event for event in run.lines("events.ndjson") if event["kind"] == "kernels")
    assert event["repeatable"] is True


def test_other_logging_saving_and_retention_give_the_same_weights(commands, straight, tmp_path):
    """What is watched, written and kept is no part of what is computed."""
    run = commands.trained(
        tmp_path,
        "run.name=other",
        "training.logging_steps=7",
        "training.eval_steps=null",
        "training.save_steps=5",
        "training.keep_last=1",
        "training.keep_best=0",
        "logging.max_bytes=1024",
        "eval.batch_size=1",
    )
    assert run.steps() == [16]
    assert run.weights() == straight.weights()
    assert run.files()["training_state.safetensors"] == straight.files()["training_state.safetensors"]


def test_adapter_of_step_zero_equals_base_and_another_seed_gives_another_order(commands, tmp_path):
    """An adapter that was never changed scores as the base does; under two seeds an epoch holds the same records."""
    runs = {}
    settings = [
        "training.max_steps=null",
        "training.epochs=1",
        "training.eval_steps=null",
        NO_STEP,
        "adapter.dropout=0",
    ]
    for seed in ("0", "1"):
        directory = tmp_path / seed
        directory.mkdir()
        runs[seed] = commands.trained(directory, *settings, f"run.seed={seed}")
    first, other = (run.metrics("train", "loss") for run in runs.values())
    # Every loss is that of the base: it differs from step to step only by which records the step saw.
    assert all(abs(first[step] - other[step]) > 1e-6 for step in first)
    assert _epoch_loss(runs["0"]) == pytest.approx(_epoch_loss(runs["1"]), rel=1e-6)

    finished = commands.run(
        "evaluate", "--checkpoint", "base", "--checkpoint", "latest", "eval.max_new_tokens=8", directory=tmp_path / "0"
    )
    assert finished.returncode == 0, finished.stderr
    base, adapter = sorted((runs["0"].directory / "eval").glob("*/results.json"))
    scores = [json.loads(file.read_text("utf-8"))["metrics"] for file in (base, adapter)]
    assert scores[0] == scores[1]
    answers = [_answers(file.with_name("predictions.ndjson")) for file in (base, adapter)]
    assert answers[0] == answers[1]
    assert any(answers[0])


def test_accumulation_eight_by_one_equals_one_by_eight(commands, tmp_path):
    """Per-step losses within 1e-5 over twenty steps, partial windows included, and no direction in what differs."""
    curves = []
    for size, accumulation in ((8, 1), (1, 8)):
        directory = tmp_path / str(size)
        directory.mkdir()
        run = commands.trained(
            directory,
            "training.max_steps=20",
            f"training.micro_batch_size={size}",
            f"training.gradient_accumulation_steps={accumulation}",
            "training.eval_steps=null",
            "training.save_steps=null",
            "adapter.dropout=0",
        )
        curves.append(run.metrics("train", "loss"))
    one, other = (np.array(list(curve.values())) for curve in curves)
    assert len(one) == len(other) == 20
    assert one[-1] < one[0]
    residual = (other - one) / one
    assert np.abs(residual).max() <= 1e-5
    assert abs(residual.mean()) <= 1e-6


def _epoch_loss(run) -> float:
    """Return the mean loss over all supervised tokens of an epoch."""
    losses, counted = run.metrics("train", "loss"), run.metrics("train", "supervised_tokens")
    total, before = 0.0, 0.0
    for step, loss in losses.items():
        total += loss * (counted[step] - before)
        before = counted[step]
    return total / before


def _answers(file) -> list[str]:
    return [json.loads(line)["prediction"] for line in file.read_text("utf-8").split("\n") if line]
