"""Averaged weights through the jobs: trained beside the others, validated, and scored unless told otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_evaluate, validate_train
from codex_ml.errors import CheckpointError, ModelError
from codex_ml.recipes.evaluate import EvaluateDependencies, evaluate
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.runs.listing import resolve_targets
from codex_ml.runs.manifest import read_manifest

pytestmark = pytest.mark.slow
STEP = "step-00000006"


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_llama_directory, small_records):
    """Return where runs lie, and the values that name model and data."""
    return tmp_path_factory.mktemp("averaged"), [f"model.path={tiny_llama_directory}", f"data.path={small_records}"]


def _train(places, *overrides: str) -> Path:
    directory, files = places
    values = [*files, "training.max_steps=6", "training.learning_rate=1e-2", "training.logging_steps=2", *overrides]
    composed = compose("train", overrides=values, working_directory=directory, environment={})
    outcome = train(validate_train(composed), TrainDependencies(emit=[].append))
    assert outcome.directory is not None
    return outcome.directory


@pytest.fixture(scope="module")
def averaged(places) -> Path:
    """Return a run that kept an average and was validated."""
    return _train(places, "run.name=averaged", "training.ema_decay=0.8", "training.eval_steps=3")


@pytest.fixture(scope="module")
def plain(places) -> Path:
    """Return the same run without an average."""
    return _train(places, "run.name=plain", "training.eval_steps=3")


def _evaluate(places, run: Path, *overrides: str) -> tuple[float, str]:
    """Return the loss of a run's checkpoint on the valid split, and what was said."""
    directory, files = places
    said: list[str] = []
    values = [*files, "eval.metrics=[loss]", "eval.split=valid", *overrides]
    composed = compose("evaluate", overrides=values, working_directory=directory, environment={})
    targets = resolve_targets([str(run / "checkpoints" / STEP)], directory / "runs", None)
    outcome = evaluate(validate_evaluate(composed), targets, EvaluateDependencies(emit=said.append))
    return outcome.results[STEP].metrics["loss"].value, "\n".join(said)


def _validation_losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.ndjson").read_text("utf-8").split("\n") if line]
    return [line["value"] for line in lines if line["split"] == "valid" and line["name"] == "loss"]


def test_evaluate_checkpoint_with_average_scores_the_average_unless_told_otherwise(places, averaged, plain):
    """The average is what was validated in training; the last weights are those of a run without one."""
    auto, said = _evaluate(places, averaged)
    assert "with its averaged weights" in said
    asked, _ = _evaluate(places, averaged, "eval.weights=averaged")
    last, said = _evaluate(places, averaged, "eval.weights=last")
    assert "averaged" not in said.replace(averaged.name, "")
    without, _ = _evaluate(places, plain)
    assert auto == asked == pytest.approx(_validation_losses(averaged)[-1], rel=1e-6)
    assert last == without == pytest.approx(_validation_losses(plain)[-1], rel=1e-6)
    assert auto != last
    results = {name: (averaged / "eval" / name / "results.json") for name in (f"{STEP}-valid", f"{STEP}-last-valid")}
    digests = {name: json.loads(file.read_text("utf-8"))["digests"] for name, file in results.items()}
    assert "ema/adapter_model.safetensors" in digests[f"{STEP}-valid"]
    assert "adapter_model.safetensors" not in digests[f"{STEP}-valid"]
    assert "adapter_model.safetensors" in digests[f"{STEP}-last-valid"]
    assert "ema/adapter_model.safetensors" not in digests[f"{STEP}-last-valid"]


def test_evaluate_averaged_weights_that_are_not_there_are_refused(places, plain):
    """Asked for outright, the average is not silently replaced by something else."""
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        _evaluate(places, plain, "eval.weights=averaged")


def test_train_all_weights_with_average_is_evaluated_by_it(places):
    """Without an adapter, ema/ is a plain model directory."""
    run = _train(places, "run.name=whole", "adapter=none", "training.ema_decay=0.8", "training.eval_steps=3")
    assert (run / "checkpoints" / STEP / "ema" / "config.json").is_file()
    auto, _ = _evaluate(places, run)
    last, _ = _evaluate(places, run, "eval.weights=last")
    assert auto == pytest.approx(_validation_losses(run)[-1], rel=1e-6)
    assert auto != last


def test_checkpoint_manifest_says_what_it_was_made_of_and_on(averaged):
    """Digests of data, config and base, and the environment; no host and no path of this machine."""
    manifest = read_manifest(averaged / "checkpoints" / STEP)
    provenance = json.loads((averaged / "provenance.json").read_text("utf-8"))
    assert manifest["config_digest"] == provenance["config_digest"]
    assert manifest["base_model_digest"] == provenance["compute"]["base_model_digest"]
    assert manifest["data_digest"] == provenance["data"]["splits"]["train"]["digest"]
    environment = manifest["environment"]
    assert environment.keys() == {"versions", "platform", "threads", "device", "dtype", "code_digest"}
    assert environment["code_digest"] == provenance["code"]["source_digest"]
    assert environment["versions"]["torch"]
    assert "/" not in json.dumps(environment)


def test_train_float16_over_bfloat16_weights_is_refused_before_a_run_exists(places):
    """Values beyond the range of float16 would become infinite one by one."""
    with pytest.raises(ModelError, match="float16 over a base in bfloat16"):
        _train(places, "run.name=refused", "model.dtype=bfloat16", "training.mixed_precision=float16")
    assert not list((places[0] / "runs").glob("*refused*"))


def test_train_float16_logs_scale_and_overflows(places):
    """The scale is a curve, each overflow an event with its step, and the account counts the windows repeated."""
    run = _train(places, "run.name=half", "adapter=none", "training.mixed_precision=float16")
    lines = [json.loads(line) for line in (run / "metrics.ndjson").read_text("utf-8").split("\n") if line]
    scales = [line["value"] for line in lines if line["name"] == "loss_scale"]
    events = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]
    overflows = [event for event in events if event["kind"] == "loss_scale_overflow"]
    account = json.loads((run / "data_account.json").read_text("utf-8"))["run"]
    assert len(scales) == 3
    assert (
        account["windows_repeated"]
        == len(overflows)
        == [line["value"] for line in lines if line["name"] == "loss_scale_overflows"][-1]
    )
    assert all(event["step"] >= 1 and event["lowered_to"] == event["loss_scale"] / 2 for event in overflows)
    state = json.loads((run / "checkpoints" / STEP / "trainer_state.json").read_text("utf-8"))["trainer"]
    assert (state["loss_scale"], state["overflows"]) == (scales[-1], len(overflows))
