"""Training jobs that ask for deterministic kernels: what is set while they train, what is said and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.errors import CheckpointError, ModelError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.train.job import TrainDependencies, plan_only, train

pytestmark = pytest.mark.slow


class WatchingStorage(Storage):
    """Remembers how torch is set whenever something is moved into place."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def replace(self, source: Path, target: Path) -> None:
        """Rename, and look."""
        self.seen.append(
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        )
        super().replace(source, target)


@dataclass
class Job:
    """Trains the tiny llama in a directory of the test, with what it says and how torch was set."""

    model: Path
    data: Path
    directory: Path
    said: list[str] = field(default_factory=list)
    storage: WatchingStorage = field(default_factory=WatchingStorage)

    def config(self, *overrides: str, resume_from: str | None = None) -> Any:
        """Return the validated configuration."""
        values = [f"model.path={self.model}", f"data.path={self.data}", "training.max_steps=2", *overrides]
        extra = {"run.resume_from": resume_from} if resume_from else {}
        return validate_train(
            compose("train", overrides=values, working_directory=self.directory, environment={}, extra_values=extra)
        )

    def run(self, *overrides: str, resume_from: str | None = None, **dependencies: Any) -> Path:
        """Train and return the run's directory."""
        dependencies = TrainDependencies(storage=self.storage, emit=self.said.append, **dependencies)
        outcome = train(self.config(*overrides, resume_from=resume_from), dependencies)
        assert outcome.directory is not None
        return outcome.directory


@pytest.fixture
def job(tmp_path: Path, tiny_llama_directory: Path, small_records: Path) -> Job:
    """Return what trains in the directory of the test."""
    return Job(tiny_llama_directory, small_records, tmp_path)


def test_deterministic_run_computes_with_torch_set_so_and_gives_it_back(job):
    """Strict while the run trains, as nothing refuses; as it was when the job is over."""
    run = job.run("training.deterministic=true")
    assert (True, False) in job.storage.seen
    assert not torch.are_deterministic_algorithms_enabled()
    kernels = json.loads((run / "provenance.json").read_text("utf-8"))["compute"]["kernels"]
    assert (kernels["deterministic"], kernels["refused"], kernels["cudnn_benchmark"]) == (True, [], False)


def test_kernel_that_refuses_is_named_in_warning_events_and_provenance(job):
    """The run goes on with what is left, and nothing that is written claims that it repeats."""

    def find_nondeterministic_ops(compute: Callable[[], None]) -> tuple[str, ...]:
        compute()
        return ("some_kernel_cuda",)

    run = job.run("training.deterministic=true", find_nondeterministic_ops=find_nondeterministic_ops)
    assert any(line.startswith("warning: ") and "some_kernel_cuda" in line for line in job.said)
    assert (True, True) in job.storage.seen
    recorded = json.loads((run / "provenance.json").read_text("utf-8"))["compute"]["kernels"]
    lines = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]
    (event,) = (line for line in lines if line["kind"] == "kernels")
    for said in (recorded, event):
        assert (said["refused"], said["repeatable"]) == (["some_kernel_cuda"], False)


def test_run_that_does_not_ask_tries_nothing(job):
    """No trial, no change of torch, and the attention is recorded all the same."""

    def find_nondeterministic_ops(compute: Callable[[], None]) -> tuple[str, ...]:
        raise AssertionError(f"{compute} is not to be tried")

    run = job.run(find_nondeterministic_ops=find_nondeterministic_ops)
    assert set(job.storage.seen) == {(False, False)}
    kernels = json.loads((run / "provenance.json").read_text("utf-8"))["compute"]["kernels"]
    assert (kernels["attention"], kernels["deterministic"], kernels["refused"]) == ("sdpa", False, None)


def test_dry_run_shows_kernels_and_what_gradient_checkpointing_saves(job):
    """Both stand in the plan, before anything is computed."""
    lines = "\n".join(plan_only(job.config("training.gradient_checkpointing=true", "training.deterministic=true")))
    assert "attention sdpa" in lines
    assert "repeatable bit for bit" in lines
    assert "gradient checkpointing: saves" in lines


def test_gradient_checkpointing_of_a_model_without_it_is_refused_before_a_run_exists(job, tmp_path):
    """The class is named, and what to set instead."""
    import shutil

    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    directory = tmp_path / "gpt1"
    shutil.copytree(job.model, directory, ignore=shutil.ignore_patterns("config.json", "generation_config.json"))
    shape = OpenAIGPTConfig(vocab_size=384, n_positions=64, n_embd=8, n_layer=1, n_head=1, n_ctx=64)
    OpenAIGPTLMHeadModel(shape).save_pretrained(directory)
    job.model = directory
    with pytest.raises(ModelError, match="OpenAIGPTLMHeadModel does not support it"):
        job.run("training.gradient_checkpointing=true")
    assert not (tmp_path / "runs").exists()


def test_resume_with_other_validation_records_is_refused_once_there_is_a_best_loss(job, tmp_path):
    """Losses on other records cannot be compared with the best so far; a run that never validated has none."""
    lines = job.data.read_text("utf-8").splitlines(keepends=True)
    files = {name: tmp_path / f"{name}.jsonl" for name in ("train", "valid", "other")}
    for file, part in zip(files.values(), (lines[:40], lines[40:50], lines[50:]), strict=True):
        file.write_text("".join(part), encoding="utf-8")
    data = ["data.path=null", f"data.train={files['train']}"]
    judged = job.run(*data, f"data.valid={files['valid']}", "training.eval_steps=1")
    with pytest.raises(CheckpointError) as caught:
        job.run(*data, f"data.valid={files['other']}", "training.max_steps=3", resume_from=str(judged))
    assert caught.value.why.startswith("validation_data_digest: 'sha256:")
    unjudged = job.run(*data, f"data.valid={files['valid']}", "run.name=unjudged")
    again = [*data, f"data.valid={files['other']}", "training.max_steps=3", "training.eval_steps=3"]
    assert job.run(*again, "run.name=unjudged", resume_from=str(unjudged)) == unjudged
