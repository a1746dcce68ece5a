"""Training jobs that go on: what is refused, what is said, and what the run directory holds afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_evaluate, validate_train
from codex_ml.errors import CheckpointError, DataError, UserError
from codex_ml.recipes.evaluate import EvaluateDependencies, evaluate
from codex_ml.recipes.train.job import TrainDependencies, train
from codex_ml.recipes.train.setup import refuse_several_processes
from codex_ml.runs.listing import resolve_targets

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path, tiny_llama_directory, small_records):
    """Return a function that trains with overrides and returns (run directory, all that was said)."""

    def run(*overrides: str, resume_from: str | None = None) -> tuple[Path, str]:
        said: list[str] = []
        extra = {"run.resume_from": resume_from} if resume_from is not None else {}
        composed = compose(
            "train",
            overrides=[
                f"model.path={tiny_llama_directory}",
                f"data.path={small_records}",
                "training.learning_rate=1e-2",
                "training.save_steps=2",
                "training.keep_last=10",
                *overrides,
            ],
            working_directory=tmp_path,
            environment={},
            extra_values=extra,
        )
        outcome = train(validate_train(composed), TrainDependencies(emit=said.append))
        assert outcome.directory is not None
        return outcome.directory, "\n".join([*said, *outcome.lines])

    return run


def _weights(run: Path, step: int) -> bytes:
    return (run / "checkpoints" / f"step-{step:08d}" / "adapter_model.safetensors").read_bytes()


def _events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]


def test_resume_from_older_checkpoint_sets_later_ones_aside(job):
    """Later checkpoints are moved, not deleted and not resumed from; the new future is computed again."""
    run, _ = job("training.max_steps=6")
    before = _weights(run, 6)
    again, said = job("training.max_steps=6", resume_from=str(run / "checkpoints" / "step-00000002"))
    assert again == run
    assert "set aside" in said
    assert "--resume-from" in said.partition("to go on from one: mv ")[2]
    (aside,) = (run / "checkpoints").glob("abandoned-*")
    assert sorted(path.name for path in aside.iterdir()) == ["step-00000004", "step-00000006"]
    assert (aside / "step-00000006" / "adapter_model.safetensors").read_bytes() == before
    assert _weights(run, 6) == before
    assert (run / "checkpoints" / "latest").read_text().strip() == "step-00000006"


def test_run_config_of_a_resumed_run_names_no_checkpoint(job):
    """The run's config describes the run, not what its last process went on from; used again it starts anew."""
    run, _ = job("training.max_steps=2")
    job("training.max_steps=4", resume_from=str(run))
    text = (run / "config.yaml").read_text("utf-8")
    assert "resume_from: null" in text
    assert "max_steps: 4" in text


def test_resume_with_another_length_says_so(job):
    """A changed number of steps changes the learning rates to come, and is said aloud."""
    run, _ = job("training.max_steps=2")
    _, said = job("training.max_steps=4", resume_from=str(run))
    assert "4 steps instead of 2" in said


def test_resume_with_other_settings_is_refused_before_data_are_read(job, tmp_path):
    """The settings are compared first: even with a data file that cannot be read, they are what is reported."""
    run, _ = job("training.max_steps=2")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="other settings") as caught:
        job("training.max_steps=4", "adapter.r=4", f"data.path={broken}", resume_from=str(run))
    assert "adapter.r: 8 there, 4 now" in caught.value.why


def test_resume_with_another_dtype_is_refused(job):
    """Weights computed in another number format are another run."""
    run, _ = job("training.max_steps=2")
    with pytest.raises(CheckpointError) as caught:
        job("training.max_steps=4", "model.dtype=bfloat16", resume_from=str(run))
    assert "dtype: 'float32' there, 'bfloat16' now" in caught.value.why


def test_resume_keeps_provenance_of_the_earlier_process_and_one_audit(job, tmp_path, small_records):
    """Each process of a run stands in its provenance; findings in the data are not counted twice."""
    data = tmp_path / "with-address.jsonl"
    address = "someone" + "@" + "example-clinic.org"
    data.write_text(
        small_records.read_text("utf-8") + json.dumps({"prompt": f"Write to {address}", "completion": "Done."}) + "\n",
        encoding="utf-8",
    )
    run, _ = job("training.max_steps=2", f"data.path={data}")
    job("training.max_steps=4", f"data.path={data}", resume_from=str(run))
    provenance = json.loads((run / "provenance.json").read_text("utf-8"))
    assert len(provenance["earlier_processes"]) == 1
    assert provenance["earlier_processes"][0]["versions"] == provenance["versions"]
    assert sum(event["kind"] == "safety_finding" for event in _events(run)) == 1


def test_early_stopped_run_goes_on_when_patience_is_taken_away(job):
    """A changed patience has its effect: the run that it ended goes on."""
    stop_early = ["training.eval_steps=1", "training.early_stopping_patience=1", "training.early_stopping_min_delta=9"]
    run, said = job("training.max_steps=6", *stop_early)
    assert "stopped early" in said
    _, said = job("training.max_steps=6", *stop_early, resume_from=str(run))
    assert "finished" in said
    _, said = job("training.max_steps=6", "training.eval_steps=1", resume_from=str(run))
    assert "trained 6 steps" in said


def test_interrupted_write_leaves_no_litter_after_resume(job):
    """What an interrupted atomic write or save left behind is gone after the next start."""
    run, _ = job("training.max_steps=2")
    (run / "checkpoints" / ".latest.4711.partial").write_text("step-")
    (run / ".run.json.4711.partial").write_text("{")
    (run / "checkpoints" / ".staging-step-00000004.4711").mkdir()
    job("training.max_steps=4", resume_from=str(run))
    assert not [path for path in run.rglob(".*") if path.name.endswith((".partial", ".4711"))]


def test_record_beyond_the_positions_of_the_model_is_refused_before_a_run_exists(job, tmp_path):
    """Records longer than the model can place are named by id; no run directory is made."""
    data = tmp_path / "long.jsonl"
    rows = [{"prompt": f"{number} ", "completion": "a b c " * 400} for number in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="512 positions"):
        job("training.max_steps=2", f"data.path={data}", "data.max_length_tokens=4000")
    assert not (tmp_path / "runs").exists()


def test_refuse_several_processes_world_size_two_is_an_error():
    """Two processes that each train alone would be two runs over all records."""
    refuse_several_processes({})
    refuse_several_processes({"WORLD_SIZE": "1"})
    with pytest.raises(UserError, match="WORLD_SIZE"):
        refuse_several_processes({"WORLD_SIZE": "2"})


def _evaluate(tmp_path, model, data, run, *overrides):
    composed = compose(
        "evaluate",
        overrides=[f"model.path={model}", f"data.path={data}", "eval.metrics=[loss]", *overrides],
        working_directory=tmp_path,
        environment={},
    )
    targets = resolve_targets([str(path) for path in run], tmp_path / "runs", None)
    return evaluate(validate_evaluate(composed), targets, EvaluateDependencies(emit=[].append))


def test_evaluate_records_that_were_trained_on_are_refused(job, tmp_path, tiny_llama_directory, small_records):
    """Another split seed would score what was learnt by heart; that is refused with the count."""
    run, _ = job("training.max_steps=2")
    with pytest.raises(DataError, match="were trained on"):
        _evaluate(tmp_path, tiny_llama_directory, small_records, [run], "data.split.seed=9")


def test_evaluate_two_runs_keeps_the_results_of_each_below_itself(job, tmp_path, tiny_llama_directory, small_records):
    """No result takes the place of another: each run has its own, other splits beside the test split."""
    first, _ = job("training.max_steps=2", "run.name=first")
    second, _ = job("training.max_steps=2", "run.name=second", "run.seed=1")
    _evaluate(tmp_path, tiny_llama_directory, small_records, [first, second])
    _evaluate(tmp_path, tiny_llama_directory, small_records, [first], "eval.split=valid")
    for run in (first, second):
        assert (run / "eval" / "step-00000002" / "results.json").is_file()
    assert (first / "eval" / "step-00000002-valid" / "results.json").is_file()
    losses = [
        json.loads((run / "eval" / "step-00000002" / "results.json").read_text("utf-8"))["metrics"]["loss"]["value"]
        for run in (first, second)
    ]
    assert losses[0] != losses[1]
