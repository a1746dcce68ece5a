"""Real jobs on the tiny llama: what the equivalences of accumulation and resume are proven with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.tokenize import TokenizedRecord
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
