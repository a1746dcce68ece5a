"""A toy language model and jobs on it: the trainer's tests need steps, not language."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DiskSpaceError
from codex_ml.io.atomic import Storage
from codex_ml.training.checkpoint.load import CheckpointContent, LoadedState
from codex_ml.training.checkpoint.save import Retention, SavedCheckpoint
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.hooks import HookResult
from codex_ml.training.job import TrainingJob

torch.set_num_threads(1)
VOCABULARY = 32


class ToyModel(nn.Module):
    """Embedding, dropout and a linear head, called like a transformers model; notes what it was shown."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, VOCABULARY)
        self.seen: list[list[list[int]]] = []
        self.on_pass: Callable[[int], object] = lambda _: None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        """Return logits ``[batch, sequence, vocabulary]`` that depend on the last two tokens."""
        assert not use_cache
        self.seen.append([row[: int(mask.sum())].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)])
        self.on_pass(len(self.seen))
        embedded = self.embedding(input_ids)
        # Shifted and not rolled: the first token must not see the last, which may be padding.
        embedded = embedded + nn.functional.pad(embedded[:, :-1], (0, 0, 1, 0))
        return SimpleNamespace(logits=self.head(self.dropout(embedded)))


class Recorder:
    """A hook that notes its calls and may answer."""

    def __init__(
        self,
        answer: Callable[[int], HookResult | None] = lambda _: None,
        before: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.calls: list[tuple[str, int]] = []
        self.metrics: list[dict[str, float]] = []
        self._answer = answer
        self._before = before

    def before_step(self, step: int) -> None:
        """Note the call."""
        self.calls.append(("before", step))
        self._before(step)

    def after_step(self, step: int, metrics: Mapping[str, float]) -> HookResult | None:
        """Note the call and a copy of the metrics."""
        self.calls.append(("after", step))
        self.metrics.append(dict(metrics))
        return self._answer(step)


class MemoryStore:
    """Keeps checkpoints in memory alone; anything that asks for a directory of theirs fails."""

    def __init__(self, free_bytes: int = 10**12) -> None:
        self.kept: dict[int, LoadedState] = {}
        self.free_bytes = free_bytes
        self.asked: list[tuple[int, int]] = []
        self.latest: int | None = None

    def __call__(self, checkpoints: Path, storage: Storage) -> MemoryStore:
        """Stand in for the class of the real store: whatever the directory, this one is opened."""
        assert not checkpoints.exists()
        assert isinstance(storage, Storage)
        return self

    def require_room(self, step: int, size_bytes: int) -> None:
        """Fail when the memory that it was given is too small."""
        self.asked.append((step, size_bytes))
        if size_bytes > self.free_bytes:
            raise DiskSpaceError(f"no room for step {step}", code="TEST_ERROR")

    def save(self, content: CheckpointContent) -> SavedCheckpoint:
        """Keep copies; through JSON, as a file would."""
        copied = {name: tensor.detach().clone() for name, tensor in content.tensors.items()}
        weights = {name: tensor.detach().clone() for name, tensor in content.weights.items()}
        state = TrainerState.from_json(json.loads(json.dumps(content.state.to_json())))
        values = json.loads(json.dumps(content.values))
        step = state.step
        self.kept[step] = LoadedState(self.place(step), state, copied, values, dict(content.manifest), weights)
        return SavedCheckpoint(self.place(step), sum(tensor.nbytes for tensor in copied.values()))

    def load(self, place: Path) -> LoadedState:
        """Return what was kept, as fresh as from a file."""
        return copy.deepcopy(self.kept[int(place.name)])

    def point_and_prune(self, state: TrainerState, retention: Retention) -> list[int]:
        """Keep the newest only."""
        self.latest = state.step
        gone = sorted(self.kept)[: -retention.keep_last]
        for step in gone:
            del self.kept[step]
        return gone

    @staticmethod
    def place(step: int) -> Path:
        """Return what a step is called; no file has that name."""
        return Path("/dev/null/memory") / str(step)


@dataclass
class Workshop:
    """Makes records, models and jobs below one directory."""

    directory: Path
    dropout: float = 0.0
    recorder: type[Recorder] = Recorder
    memory_store: type[MemoryStore] = MemoryStore

    def model(self, seed: int = 0) -> ToyModel:
        """Return a seeded toy model."""
        torch.manual_seed(seed)
        return ToyModel(self.dropout)

    def records(
        self, count: int = 10, lengths: Callable[[int], int] = lambda index: 3 + index % 5
    ) -> list[TokenizedRecord]:
        """Return records of different lengths; the first token of each is its number, so that order can be read."""
        draw = random.Random(3)
        records = []
        for index in range(count):
            ids = (index % VOCABULARY, *(draw.randrange(VOCABULARY) for _ in range(lengths(index) - 1)))
            prompt_length = 1 + index % 2
            supervised = tuple(position >= prompt_length for position in range(len(ids)))
            records.append(TokenizedRecord(f"data.jsonl:{index + 1}", ids, supervised, prompt_length, "", None))
        return records

    def job(
        self,
        model: nn.Module | None = None,
        records: list[TokenizedRecord] | None = None,
        name: str = "run",
        total_steps: int = 6,
        seed: int = 0,
        on_disk: bool = True,
        **settings: Any,
    ) -> TrainingJob:
        """Return a job of its own directory."""
        model = model or self.model()
        checkpoints = self.directory / name / "checkpoints"
        if on_disk:
            checkpoints.mkdir(parents=True, exist_ok=True)
        values = {"micro_batch_size": 2, "learning_rate": 0.01, "logging_steps": 2, "schedule": "constant", **settings}
        return TrainingJob(
            model=model,
            records=records if records is not None else self.records(),
            pad_token_id=0,
            seed=seed,
            settings=TrainingSection.model_validate(values),
            total_steps=total_steps,
            checkpoints=checkpoints,
            write_weights=lambda directory: save_file(model.state_dict(), directory / "model.safetensors"),
            checkpoint_values=lambda: {"fingerprint": {"seed": seed}},
            manifest={"kind": "model"},
        )

    @staticmethod
    def load_weights(model: nn.Module, checkpoint: Path) -> nn.Module:
        """Put the weights of a checkpoint into a model."""
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        return model

    @staticmethod
    def content(checkpoint: Path) -> dict[str, bytes]:
        """Return every file of a checkpoint."""
        return {file.name: file.read_bytes() for file in sorted(checkpoint.iterdir())}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Return a maker of toy jobs."""
    return Workshop(tmp_path)
