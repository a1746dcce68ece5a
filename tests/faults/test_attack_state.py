"""Training state from a stranger, in a checkpoint whose manifest is right: every part that is none is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage
from codex_ml.runs.layout import TRAINER_STATE_NAME, TRAINING_STATE_NAME
from codex_ml.runs.manifest import write_manifest
from codex_ml.training.checkpoint.load import load_checkpoint
from codex_ml.training.checkpoint.state import TrainerState, random_snapshot, random_tensors, restore_random
from codex_ml.training.optimizer import build_optimizer, restore_optimizer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., Path]:
    """Return what makes a checkpoint of a state and tensors, with the manifest that goes with them."""

    def forged(state: object = None, raw: bytes | None = None, tensors: bytes | None = None) -> Path:
        directory = tmp_path / "step-00000002"
        directory.mkdir()
        value = state if state is not None else {"trainer": TrainerState().to_json()}
        (directory / TRAINER_STATE_NAME).write_bytes(raw if raw is not None else json.dumps(value).encode())
        if tensors is None:
            save_file({"a": torch.zeros(1)}, directory / TRAINING_STATE_NAME)
        else:
            (directory / TRAINING_STATE_NAME).write_bytes(tensors)
        write_manifest(directory, {"step": 2, "kind": "adapter"}, Storage())
        return directory

    return forged


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "2"),
        ("step", -1),
        ("step", 1.5),
        ("step", True),
        ("step", None),
        ("step", 2**70),
        ("trained_tokens", [1]),
        ("interval_loss_sum", "0"),
        ("interval_loss_sum", True),
        ("best_metric", {}),
        ("best_step", "x"),
        ("evaluations_without_improvement", {}),
        ("validation_losses", []),
        ("validation_losses", {"x": 1.0}),
        ("validation_losses", {"-1": 1.0}),
        ("validation_losses", {"9" * 5000: 1.0}),
        ("validation_losses", {"1": "low"}),
        ("stop_reason", 7),
    ],
)
def test_counter_of_another_kind_is_named(forge, key, value):
    """Each field is held against its kind before anything counts with it."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(forge({"trainer": {**TrainerState().to_json(), key: value}}))
    assert f"trainer.{key}" in caught.value.what


def test_sound_state_passes(forge):
    """What training writes is read, at its limits too."""
    state = TrainerState(step=3, best_metric=0.5, best_step=2, validation_losses={2: 0.5}, stop_reason="patience")
    assert load_checkpoint(forge({"trainer": state.to_json()})).state == state


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"trainer": ' * 50_000,
        b"[]",
        b"7",
        b"{}",
        b'{"trainer": 7}',
        b'{"trainer": NaN}',
        b"\xff\xfe",
        b'{"trainer": {}, "trainer": {}}',
    ],
)
def test_state_file_that_is_garbage_is_refused(forge, raw):
    """Depth, lists and numbers where an object belongs: one error."""
    with pytest.raises(CheckpointError):
        load_checkpoint(forge(raw=raw))


@pytest.mark.parametrize("key", ["random", "fingerprint", "tracker_run_ids", "total_steps"])
def test_further_value_of_another_kind_is_named(forge, key):
    """So are the values that recipes put beside the counters."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(forge({"trainer": TrainerState().to_json(), key: "x"}))
    assert key in caught.value.why


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 64, (8_000_000_000).to_bytes(8, "little") + b"{}"])
def test_tensors_with_a_header_that_lies_are_refused(forge, content):
    """The file of tensors may lie about its length although its digest is right."""
    with pytest.raises(CheckpointError, match=r"training_state\.safetensors"):
        load_checkpoint(forge(tensors=content))


def _good() -> dict[str, Any]:
    return json.loads(json.dumps(random_snapshot().values()))


@pytest.mark.parametrize(
    ("key", "spoil"),
    [
        ("python", lambda state: state.__setitem__(0, 99)),
        ("python", lambda state: state[1].pop()),
        ("python", lambda state: state[1].__setitem__(0, "x")),
        ("python", lambda state: state[1].__setitem__(-1, 10**6)),
        ("python", list.clear),
        ("numpy", lambda state: state.__setitem__(0, "PCG64")),
        ("numpy", lambda state: state[1].pop()),
        ("numpy", lambda state: state[1].__setitem__(0, -5)),
        ("numpy", lambda state: state.__setitem__(2, 10**9)),
        ("numpy", lambda state: state.__setitem__(2, -7)),
        ("numpy", lambda state: state.__setitem__(1, "x" * 624)),
        ("numpy", list.clear),
    ],
)
def test_generator_state_that_is_none_is_named(key, spoil):
    """A generator is given nothing that is not its state: NumPy would read beyond its table."""
    values = _good()
    spoil(values[key])
    with pytest.raises(CheckpointError, match=rf"random\.{key}"):
        restore_random(random_tensors(), values)
    restore_random(random_tensors(), _good())


@pytest.mark.parametrize("values", [{}, {"python": 7, "numpy": []}, {"python": None}])
def test_generator_states_that_are_absent_are_named(values):
    """Nor is one left as it was in silence."""
    with pytest.raises(CheckpointError, match=r"random\.python"):
        restore_random(random_tensors(), values)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"random.torch_cpu": torch.zeros(3, dtype=torch.uint8)},
        {"random.torch_cpu": torch.zeros(5056)},
        {"random.torch_cpu": torch.full((5056,), 255, dtype=torch.uint8)},
    ],
)
def test_torch_state_that_is_none_is_named(tensors):
    """Torch checks size, type and content; what it says becomes our error."""
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"random\.torch_cpu"):
        restore_random(tensors, _good())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update({"optimizer.weight|exp_avg": torch.zeros(7, 7)}),
        lambda state: state.update({"optimizer.weight|exp_avg": torch.zeros(3, 2, dtype=torch.int64)}),
        lambda state: state.update({"optimizer.weight|exp_avg": torch.zeros(3, 2, dtype=torch.float64)}),
        lambda state: state.update({"optimizer.weight|step": torch.zeros(1000)}),
        lambda state: state.update({"optimizer.weight|step": torch.zeros(1, dtype=torch.int64)}),
        lambda state: state.update({"optimizer.weight|evil": torch.zeros(3, 2)}),
        lambda state: state.update({"optimizer.nobody|exp_avg": torch.zeros(3, 2)}),
        lambda state: state.update({"optimizer.weight|untouched": torch.zeros(0)}),
        lambda state: state.pop("optimizer.weight|exp_avg_sq"),
        dict.clear,
    ],
)
def test_optimizer_state_of_another_shape_name_or_type_is_refused(spoil):
    """Moments must be those of their parameters."""
    model = nn.Linear(2, 3, bias=False)
    optimizer = build_optimizer(model, TrainingSection())
    state = {
        "optimizer.weight|step": torch.tensor(1.0),
        "optimizer.weight|exp_avg": torch.zeros(3, 2),
        "optimizer.weight|exp_avg_sq": torch.zeros(3, 2),
    }
    restore_optimizer(model, optimizer, state)
    spoil(state)
    with pytest.raises(CheckpointError, match="optimizer state"):
        restore_optimizer(model, optimizer, state)


@pytest.fixture(autouse=True)
def generators_as_before():
    """Leave the generators of this process as they were."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy_state)
    torch.set_rng_state(torch_state)


@pytest.mark.parametrize(
    "tensors", [{"model.norm.weight": torch.zeros(7)}, {"evil": torch.zeros(1)}, {}], ids=["shape", "name", "empty"]
)
def test_whole_weights_of_another_shape_or_name_are_refused(tiny_llama_directory, tmp_path, tensors):
    """A checkpoint of a whole model is put into the model of the config, or refused; the library's error is ours."""
    from transformers import AutoTokenizer

    from codex_ml.config.compose import compose
    from codex_ml.config.validate import validate_train
    from codex_ml.recipes.train.setup import build_trainable_model

    values = [f"model.path={tiny_llama_directory}", "data.path=none.jsonl", "adapter.kind=none"]
    config = validate_train(compose("train", "default", None, values, tmp_path, {}))
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_directory, local_files_only=True)
    trainable = build_trainable_model(config, tokenizer)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit this model"):
        trainable.restore_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="do not fit this model"):
        trainable.restore_weights(tmp_path)
