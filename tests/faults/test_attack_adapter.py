"""Adapters from a stranger: settings that import modules, multiply layers or search without end are refused by name."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from codex_ml.errors import CheckpointError
from codex_ml.peft.adapter_files import load_adapter, write_adapter
from codex_ml.peft.peft_adapter import apply_lora
from error_checks import has_code

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def saved(tiny_llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sound adapter."""
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True)
    directory = tmp_path_factory.mktemp("adapter")
    write_adapter(apply_lora(base, r=4), directory)
    return directory


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be spoiled."""
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


@pytest.fixture(scope="module")
def base(tiny_llama_directory: Path):
    """Return the model it belongs to; a refusal must leave it as it was."""
    return AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True)


def _set(adapter: Path, **values: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_base_path_elsewhere_is_ignored(adapter, base):
    """The adapter goes onto the base that was asked for, wherever its settings say that one lies."""
    _set(adapter, base_model_name_or_path="/etc/passwd", revision="main", peft_version="999")
    load_adapter(base, adapter).unload()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("megatron_core", "evil_module"),
        ("megatron_config", {"a": 1}),
        ("auto_mapping", {"base_model_class": "x", "parent_library": "evil_module"}),
        ("loftq_config", {"loftq_bits": 4}),
        ("layer_replication", [[0, 1_000_000_000]]),
        ("eva_config", {"rho": 2.0}),
        ("corda_config", {"cache_file": "/etc/passwd"}),
        ("arrow_config", {}),
        ("target_parameters", ["x"]),
        ("trainable_token_indices", list(range(10))),
        ("modules_to_save", ["embed_tokens"]),
        ("use_qalora", True),
        ("unheard_of", 1),
        ("target_modules", "(a+)+$"),
        ("target_modules", ["(a+)+$"]),
        ("target_modules", {"a": 1}),
        ("exclude_modules", "(a|a)*b"),
        ("layers_pattern", "(a+)+"),
        ("layers_pattern", ["layers"]),
        ("rank_pattern", {"(a+)+$": 8}),
        ("rank_pattern", {"q_proj": 10**12}),
        ("alpha_pattern", {"^(.*)*$": 8}),
        ("r", 10**12),
        ("r", -1),
        ("r", "8"),
        ("r", True),
        ("lora_alpha", "x"),
        ("lora_dropout", 5),
        ("bias", "evil"),
        ("task_type", "EVIL"),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", None),
    ],
)
def test_setting_that_is_no_plain_lora_is_named(adapter, base, tmp_path, key, value):
    """Nothing is imported, nothing built; the base model stays as it was."""
    (tmp_path / "evil_module.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n")
    _set(adapter, **{key: value})
    before = [name for name, _ in base.named_parameters()]
    started = time.process_time()
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(CheckpointError) as caught:
            load_adapter(base, adapter)
    finally:
        sys.path.remove(str(tmp_path))
    assert key in caught.value.why
    assert time.process_time() - started < 60.0
    assert not (tmp_path / "canary").exists()
    assert [name for name, _ in base.named_parameters()] == before


def test_rank_beyond_the_weights_is_refused_before_memory_is_asked_for(adapter, base):
    """A rank of 60,000 would make matrices that the file of weights does not have."""
    _set(adapter, r=60_000)
    with pytest.raises(CheckpointError, check=lambda error: has_code(error, "ADAPTER_CONFIG_WEIGHTS_MISMATCH")):
        load_adapter(base, adapter)


@pytest.mark.parametrize("value", ["pissa", "olora", "loftq", "eva", False])
def test_other_way_to_draw_weights_has_no_effect(adapter, base, value):
    """Some ways would change the base model or need data; the weights are read, so none is followed."""
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    _set(adapter, init_lora_weights=value)
    load_adapter(base, adapter).unload()
    assert all(tensor.equal(before[name]) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{", b"\xff", b'{"r": NaN}', b" " * (17 << 20)])
def test_adapter_config_that_is_a_bomb_is_refused(adapter, base, content):
    """Depth and garbage: one error."""
    (adapter / "adapter_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, check=lambda error: has_code(error, "ADAPTER_CONFIG_INVALID")):
        load_adapter(base, adapter)


def test_adapter_config_that_is_a_pipe_is_refused(adapter, base):
    """It is not waited for."""
    (adapter / "adapter_config.json").unlink()
    os.mkfifo(adapter / "adapter_config.json")
    with pytest.raises(CheckpointError, check=lambda error: has_code(error, "ADAPTER_CONFIG_INVALID")):
        load_adapter(base, adapter)
