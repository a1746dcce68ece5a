"""Runs on cached tokens are the runs that they would be without: every byte, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SHARED = ("data_account.json", "data_splits.json", "checkpoints/step-00000003/adapter_model.safetensors")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with findings of the safety policy and prompts that stand in it twice."""
    file = tmp_path_factory.mktemp("records") / "records.jsonl"
    address = "someone" + "@" + "example-clinic.org"
    rows = [
        {"prompt": f"What is {n % 40} plus one? ", "completion": f"{n % 40 + 1}, says {address if n % 9 == 0 else n}"}
        for n in range(120)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def _run_of(directory: Path) -> Path:
    (run,) = [item for item in (directory / "runs").iterdir() if not item.name.startswith(".")]
    return run


def _findings(run: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").splitlines()]
    kept = ("record_id", "field", "rule_id", "offset", "length", "action")
    return [{key: event[key] for key in kept} for event in events if event["kind"] == "safety_finding"]


def test_train_from_the_cache_is_the_run_from_scratch_in_every_byte(
    command_line: Any, tiny_llama_directory: Path, records: Path, tmp_path: Path
) -> None:
    """Adapter, account, membership, audit; a dry run writes nothing, an evaluation takes the entry too."""
    common = [f"model.path={tiny_llama_directory}", f"data.path={records}", "data.split.ratios=[0.6,0.2,0.2]"]
    train = ["train", *common, "training.max_steps=3", "training.eval_steps=3"]
    cached = [*train, f"data.cache_dir={tmp_path / 'cache'}", "data.cache_min_bytes=0"]
    place = {name: tmp_path / name for name in ("dry", "none", "first", "second")}
    for directory in place.values():
        directory.mkdir()

    answer = command_line.run(*cached, "--dry-run", directory=place["dry"])
    assert answer.returncode == 0, answer.stderr
    assert list(place["dry"].iterdir()) == []
    assert not (tmp_path / "cache").exists()

    said = {}
    for name, command in (("none", [*train, "data.cache_dir=null"]), ("first", cached), ("second", cached)):
        answer = command_line.run(*command, directory=place[name])
        assert answer.returncode == 0, answer.stderr
        said[name] = answer.stderr
    assert "tokenised data" not in said["none"]
    assert "kept for the next start" in said["first"]
    assert "taken from the cache" in said["second"]
    runs = [_run_of(place[name]) for name in said]
    for name in SHARED:
        assert len({(run / name).read_bytes() for run in runs}) == 1, name
    audits = [_findings(run) for run in runs]
    assert audits[0] == audits[1] == audits[2] != []
    shared = json.loads((runs[2] / "data_splits.json").read_text("utf-8"))["splits"]["test"]
    assert shared["prompts_shared_with_train"] > shared["overlap_with_train"] == 0

    answer = command_line.run("evaluate", "--checkpoint", str(runs[2]), "eval.metrics=[loss]", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "taken from the cache" in answer.stderr
    answer = command_line.run("runs", "verify", str(runs[2]), directory=tmp_path)
    assert answer.returncode == 0, answer.stdout
    (entry,) = (tmp_path / "cache").iterdir()
    assert {file.stat().st_mode & 0o777 for file in entry.iterdir()} == {0o600}
