"""Real jobs on the tiny llama: what the equivalences of accumulation and resume are proven with."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.models.model_files import write_model
from codex_ml.peft.adapter_files import restore_adapter, write_adapter
from codex_ml.peft.peft_adapter import apply_lora
from codex_ml.training.job import TrainingJob

torch.set_num_threads(1)


@dataclass
class Bench:
    """Makes models, records and jobs; ``kind`` is that of the adapter section."""

    directory: Path
    base: Path
    tokenizer: PreTrainedTokenizerFast

    def model(self, kind: str = "lora", dropout: float = 0.0, seed: int = 0) -> nn.Module:
        """Return a seeded LoRA model, or a small model whose every weight is trained (tied head)."""
        torch.manual_seed(seed)
        if kind == "lora":
            base = AutoModelForCausalLM.from_pretrained(self.base, local_files_only=True)
            return apply_lora(base, r=4, dropout=dropout, target_modules=["q_proj", "v_proj", "down_proj"])
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                tie_word_embeddings=True,
            )
        )

    def records(self, count: int = 44, longest: int = 40) -> list[TokenizedRecord]:
        """Return records of very different lengths and supervised shares: short and long ones meet in each window."""
        draw = random.Random(11)
        records = []
        for index in range(count):
            length = draw.choice((3, 4, 5, longest // 2, longest))
            ids = tuple(draw.randrange(6, 380) for _ in range(length))
            prompt_length = draw.randrange(1, length - 1)
            supervised = tuple(position >= prompt_length for position in range(length))
            records.append(TokenizedRecord(f"data.jsonl:{index + 1}", ids, supervised, prompt_length, "", None))
        return records

    def job(self, model: nn.Module, name: str, total_steps: int, kind: str = "lora", **values: Any) -> TrainingJob:
        """Return a job that trains a model in a directory of its own."""
        checkpoints = self.directory / name / "checkpoints"
        checkpoints.mkdir(parents=True)
        settings = {"schedule": "cosine", "warmup_steps": 2, "learning_rate": 5e-3, "logging_steps": 4}
        records, seed = values.pop("records", None) or self.records(), values.pop("seed", 0)
        return TrainingJob(
            model=model,
            records=records,
            pad_token_id=0,
            seed=seed,
            settings=TrainingSection.model_validate({**settings, **values}),
            total_steps=total_steps,
            checkpoints=checkpoints,
            write_weights=lambda directory: (write_adapter if kind == "lora" else write_model)(model, directory),
        )

    @staticmethod
    def restore(model: nn.Module, kind: str, checkpoint: Path) -> nn.Module:
        """Put the weights of a checkpoint into a model."""
        if kind == "lora":
            restore_adapter(model, checkpoint)
        else:
            model.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=False)
        return model


@pytest.fixture
def bench(tmp_path: Path, tiny_llama_directory: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> Bench:
    """Return a maker of jobs on the tiny llama."""
    return Bench(tmp_path, tiny_llama_directory, tiny_tokenizer)


class StepLosses:
    """A hook that collects the loss of every step and the gradient norm."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def before_step(self, step: int) -> None:
        """Do nothing."""

    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        """Note loss and norm."""
        assert step >= 1
        self.losses.append(metrics["step_loss"])
        self.norms.append(metrics["gradient_norm"])


@pytest.fixture
def step_losses() -> type[StepLosses]:
    """Return the class of the collecting hook."""
    return StepLosses


# Seven steps an epoch, the last of them over two records; dropout draws from the random state in every step.
STRAIGHT_STEPS = 16
_SETTINGS = (
    f"training.max_steps={STRAIGHT_STEPS}",
    "training.micro_batch_size=4",
    "training.gradient_accumulation_steps=2",
    "training.learning_rate=1e-2",
    "training.logging_steps=1",
    "training.eval_steps=4",
    "training.save_steps=1",
    "training.keep_last=99",
    "adapter.dropout=0.1",
)


@dataclass(frozen=True)
class Trained:
    """A run directory, and what can be compared of it."""

    directory: Path

    def checkpoint(self, step: int = STRAIGHT_STEPS) -> Path:
        """Return a checkpoint's directory."""
        return self.directory / "checkpoints" / f"step-{step:08d}"

    def files(self, step: int = STRAIGHT_STEPS) -> dict[str, bytes]:
        """Return every file of a checkpoint but its manifest, which names the run."""
        found = sorted(path for path in self.checkpoint(step).rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in found if path.name != "manifest.json"}

    def weights(self, step: int = STRAIGHT_STEPS) -> bytes:
        """Return the bytes of an adapter."""
        return (self.checkpoint(step) / "adapter_model.safetensors").read_bytes()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint."""
        return sorted(int(path.name.removeprefix("step-")) for path in (self.directory / "checkpoints").glob("step-*"))

    def metrics(self, split: str, name: str) -> dict[int, float]:
        """Return one metric by step; a step that stands there twice is a failure."""
        lines = [line for line in self.lines("metrics.ndjson") if (line["split"], line["name"]) == (split, name)]
        found = {line["step"]: line["value"] for line in lines}
        assert len(found) == len(lines)
        return found

    def measured(self) -> list[tuple[int, str, str, float]]:
        """Return all that was measured and is not decided by the machine (time, memory)."""
        timed = {"supervised_tokens_per_second", "memory_bytes"}
        return [
            (line["step"], line["split"], line["name"], line["value"])
            for line in self.lines("metrics.ndjson")
            if line["split"] in ("train", "valid") and line["name"] not in timed
        ]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the records of an NDJSON file."""
        return [json.loads(line) for line in (self.directory / name).read_text("utf-8").split("\n") if line]


@dataclass(frozen=True)
class Commands:
    """The command line, on one model and one file of records."""

    command_line: Any
    model: Path
    data: Path

    def run(self, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return self.command_line.run(*arguments, directory=directory)

    def train(self, directory: Path, *overrides: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ``codex-ml train`` with the settings of the straight run, and others over them."""
        files = (f"model.path={self.model}", f"data.path={self.data}")
        finished = self.run("train", *files, *_SETTINGS, *overrides, directory=directory)
        assert (finished.returncode != 0) == fails, finished.stderr
        return finished

    def trained(self, directory: Path, *overrides: str) -> Trained:
        """Train in a directory of its own and return the run."""
        self.train(directory, *overrides)
        return the_run(directory)


def the_run(directory: Path) -> Trained:
    """Return the only run of a working directory."""
    (run,) = (path for path in (directory / "runs").iterdir() if path.is_dir())
    return Trained(run)


@pytest.fixture(scope="session")
def commands(command_line: Any, tiny_llama_directory: Path, small_records: Path) -> Commands:
    """Return the command line on the tiny llama."""
    return Commands(command_line, tiny_llama_directory, small_records)


@pytest.fixture(scope="session")
def straight(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a run that nothing interrupted, with a checkpoint of every step; treat it as read-only."""
    return commands.trained(tmp_path_factory.mktemp("straight"))


@dataclass(frozen=True)
class Copies:
    """Makes copies of a run, as they were at one of its checkpoints."""

    directory: Path

    def whole(self, run: Trained) -> Trained:
        """Return a copy of a run with all of its checkpoints."""
        copy = self.directory / "runs" / run.directory.name
        shutil.copytree(run.directory, copy)
        return Trained(copy)

    def interrupted(self, run: Trained, step: int) -> Trained:
        """Return a copy without what was written after a step but the logs: the run died before the next checkpoint."""
        copy = self.whole(run)
        for later in (later for later in copy.steps() if later > step):
            shutil.rmtree(copy.checkpoint(later))
        for pointer in ("latest", "best"):
            (copy.directory / "checkpoints" / pointer).unlink()
        return copy


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Return what copies runs into the working directory of the test."""
    return Copies(tmp_path)
