"""A model named as on the hub is taken from the local cache, with no network, and is the same model as by its path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory, tiny_llama_directory) -> Path:
    """Return a cache that holds the tiny llama as org/tiny-llama, laid out as huggingface_hub does it."""
    cache = tmp_path_factory.mktemp("hf") / "hub"
    repository = cache / "models--org--tiny-llama"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(tiny_llama_directory.iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return cache


def test_train_by_name_is_the_run_by_path(
    isolated_command_line, tmp_path, hub_cache, tiny_llama_directory, small_records
):
    """A run by name goes on by path: digests and fingerprint are equal; provenance says name and commit."""
    settings = [f"data.path={small_records}", "run.name=named", "training.micro_batch_size=4"]
    trained = isolated_command_line.run(
        "train",
        "model.name=org/tiny-llama",
        "training.max_steps=2",
        "training.schedule=constant",
        *settings,
        directory=tmp_path,
        HF_HOME=str(hub_cache.parent),
    )
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs").iterdir()
    base = json.loads((run / "provenance.json").read_text())["base_model"]
    assert (base["name"], base["revision"]) == ("org/tiny-llama", COMMIT)
    assert base["files"]["model.safetensors"]["bytes"] == (tiny_llama_directory / "model.safetensors").stat().st_size
    assert str(hub_cache) not in (run / "config.yaml").read_text()

    resumed = isolated_command_line.run(
        "train",
        f"model.path={tiny_llama_directory}",
        "training.max_steps=3",
        "training.schedule=constant",
        "--resume-from",
        "latest",
        *settings,
        directory=tmp_path,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "trained 3 steps" in resumed.stdout


def test_evaluate_base_by_name(isolated_command_line, tmp_path, hub_cache, small_records):
    """The tokenizer and the weights of the snapshot are found by evaluate too."""
    scored = isolated_command_line.run(
        "evaluate",
        "--checkpoint",
        "base",
        "model.name=org/tiny-llama",
        f"data.test={small_records}",
        "eval.metrics=[loss]",
        directory=tmp_path,
        HF_HUB_CACHE=str(hub_cache),
    )
    assert scored.returncode == 0, scored.stderr
    assert "loss" in scored.stdout


def test_train_by_name_that_is_not_in_the_cache_says_how_to_bring_it(
    isolated_command_line, tmp_path, hub_cache, small_records
):
    """One block, exit code 2, nothing left behind, nobody asked."""
    answer = isolated_command_line.run(
        "train",
        "model.name=org/tiny-lama",
        f"data.path={small_records}",
        directory=tmp_path,
        HF_HUB_CACHE=str(hub_cache),
    )
    assert answer.returncode == 2
    assert answer.stderr.count("error:") == 1
    for words in ("did you mean org/tiny-llama?", str(hub_cache), "hf download org/tiny-lama"):
        assert words in answer.stderr
    assert not (tmp_path / "runs").exists()
