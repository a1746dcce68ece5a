"""Results do not depend on PYTHONHASHSEED: no set or dictionary decides an order that a run can show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(command_line, tmp_path_factory, tiny_llama_directory, small_records) -> tuple[Path, Path]:
    """Return the directories of two runs, trained and evaluated alike but for the seed of the hashes."""
    found = []
    for hash_seed in ("0", "1"):
        directory = tmp_path_factory.mktemp(f"hash-{hash_seed}")
        for arguments in (
            (
                "train",
                f"model.path={tiny_llama_directory}",
                f"data.path={small_records}",
                "training.max_steps=6",
                "training.micro_batch_size=4",
                "training.gradient_accumulation_steps=2",
                "training.learning_rate=1e-2",
                "training.logging_steps=1",
                "training.eval_steps=3",
                "adapter.dropout=0.1",
            ),
            ("evaluate", "--checkpoint", "latest", "eval.max_new_tokens=8"),
        ):
            answer = command_line.run(*arguments, directory=directory, PYTHONHASHSEED=hash_seed)
            assert answer.returncode == 0, answer.stderr
        (run,) = (directory / "runs").iterdir()
        found.append(run)
    first, second = found
    return first, second


def _metrics(run: Path) -> list[tuple[int, str, str, float]]:
    """Return what was measured of training and validation, without what the machine decides (time, memory)."""
    timed = {"supervised_tokens_per_second", "memory_bytes"}
    lines = [json.loads(line) for line in (run / "metrics.ndjson").read_text("utf-8").split("\n") if line]
    return [
        (line["step"], line["split"], line["name"], line["value"])
        for line in lines
        if line["split"] in ("train", "valid") and line["name"] not in timed
    ]


@pytest.mark.full("resume")
def test_hash_seed_other_gives_the_same_splits(runs):
    """Membership, digests and account of the data are byte for byte the same."""
    first, second = runs
    for name in ("data_splits.json", "data_account.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.full("resume")
def test_hash_seed_other_gives_the_same_metrics(runs):
    """Every value of every step, and every score and prediction of the evaluation."""
    first, second = runs
    assert _metrics(first) == _metrics(second)
    assert {split for _, split, _, _ in _metrics(first)} == {"train", "valid"}
    (one,), (other,) = first.glob("eval/*/metrics.csv"), second.glob("eval/*/metrics.csv")
    assert one.read_bytes() == other.read_bytes()
    assert _without_stamps(one.parent) == _without_stamps(other.parent)


@pytest.mark.full("resume")
def test_hash_seed_other_gives_the_same_checkpoint(runs):
    """Adapter, its description, optimizer state and tokenizer are byte for byte the same."""
    first, second = runs
    one, other = first / "checkpoints/step-00000006", second / "checkpoints/step-00000006"
    # The manifest names the run.
    own = {"manifest.json"}
    names = sorted(file.name for file in one.iterdir() if file.name not in own)
    assert "adapter_model.safetensors" in names
    assert names == sorted(file.name for file in other.iterdir() if file.name not in own)
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _without_stamps(evaluation: Path) -> tuple[object, list[object]]:
    """Return results and predictions without the stamps of the moment they were written."""
    results = json.loads((evaluation / "results.json").read_text("utf-8"))
    lines = (evaluation / "predictions.ndjson").read_text("utf-8").split("\n")
    predictions = [{**json.loads(line), "time": None} for line in lines if line]
    return {key: value for key, value in results.items() if key != "files"}, list(predictions)
