"""The example as the README shows it: trained and scored with no network, from another directory, tuned beats base."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.slow

LOWER_IS_BETTER = ("loss", "perplexity")


def test_examples_minimal_tuned_beats_base_on_every_metric(isolated_command_line, tmp_path):
    """The main job of the README in an empty network namespace; the test split was never trained on."""
    trained = isolated_command_line.run("train", "--config-name=examples/minimal", directory=tmp_path)
    assert trained.returncode == 0, trained.stderr
    scored = isolated_command_line.run(
        "evaluate", "--config-name=examples/minimal", "--checkpoint", "base", "--checkpoint", "best", directory=tmp_path
    )
    assert scored.returncode == 0, scored.stderr
    (run,) = (tmp_path / "runs").iterdir()
    base = json.loads((run / "eval" / "base" / "results.json").read_text())
    (tuned_file,) = run.glob("eval/step-*/results.json")
    tuned = json.loads(tuned_file.read_text())
    assert base["split"] == tuned["split"] == "test"
    assert base["records_scored"] == tuned["records_scored"] >= 60
    for name, result in tuned["metrics"].items():
        before, after = base["metrics"][name]["value"], result["value"]
        assert after < 0.7 * before if name in LOWER_IS_BETTER else after > before + 0.1 * (before + 1), name
    splits = json.loads((run / "data_splits.json").read_text())["splits"]
    assert splits["test"]["overlap_with_train"] == 0
    assert not set(splits["test"]["offsets"]) & set(splits["train"]["offsets"])


def test_examples_data_is_made_again_byte_for_byte(repository_root, tmp_path):
    """The generator gives the committed records, whatever PYTHONHASHSEED is."""
    import os
    import subprocess
    import sys

    committed = (repository_root / "examples" / "minimal" / "data.jsonl").read_bytes()
    for seed in ("0", "1"):
        output = tmp_path / f"data-{seed}.jsonl"
        subprocess.run(
            [sys.executable, "examples/minimal/make_data.py", "--output", str(output)],
            cwd=repository_root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        assert output.read_bytes() == committed
    assert len(committed.splitlines()) >= 600
