"""Model directories from a stranger: code, pickles, links out, absurd sizes; refused before memory is asked for."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codex_ml.errors import ModelError
from codex_ml.io.untrusted import UntrustedFileError
from codex_ml.models.directory import check_model_directory
from codex_ml.models.directory_guard import read_header
from codex_ml.models.hub_cache import find_snapshot

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def model(tiny_llama_directory: Path, tmp_path: Path) -> Path:
    """Return a copy of a sound model, to be spoiled."""
    return Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))


def _set(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **values}))


def _refused(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_model_directory(model)
    return caught.value.block()


class _Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self._directory),))


def test_sound_model_passes(model):
    """What makes a model is let through."""
    assert check_model_directory(model)["model_type"] == "llama"


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "x.pth", "last.ckpt", "state.PKL", "a.pickle", "b.npy", "c.joblib", "d.h5"],
)
def test_pickle_beside_safetensors_is_refused_by_name(model, tmp_path, name):
    """A pickle is never read, and its directory not taken, although sound weights lie beside it."""
    (model / name).write_bytes(pickle.dumps(_Canary(tmp_path / "canary")))
    assert name in _refused(model)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"text_config": {"deep": [{"auto_map": {"AutoConfig": "evil.Config"}}]}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("config.json", {"transformers_weights": "../../elsewhere.safetensors"}),
        ("generation_config.json", {"custom_generate": "somebody/code"}),
        ("config.json", {"_attn_implementation": "somebody/kernel"}),
        ("config.json", {"attn_implementation": "somebody/kernel:attention"}),
    ],
)
def test_code_named_by_a_setting_is_refused(model, tmp_path, file, values):
    """No Python file of a model directory is imported, and no kernel fetched."""
    (model / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n")
    _set(model / file, **values)
    assert "never runs code" in _refused(model)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json", "unused.txt"])
def test_link_that_leads_out_is_refused(model, tmp_path, name):
    """A link may lead to any file of the machine."""
    target = tmp_path / "elsewhere"
    if (model / name).exists():
        (model / name).rename(target)
    else:
        target.write_text("{}")
    (model / name).symlink_to(target)
    assert f"{name} is a link that leads out" in _refused(model)


def test_link_to_a_device_is_refused(model):
    """Reading /dev/zero would not end."""
    (model / "tokenizer_config.json").unlink()
    (model / "tokenizer_config.json").symlink_to("/dev/zero")
    assert "leads out" in _refused(model)


def test_link_within_the_directory_is_followed(model):
    """A link to a file beside it is no way out."""
    (model / "model.safetensors").rename(model / "weights.data")
    (model / "model.safetensors").symlink_to("weights.data")
    assert check_model_directory(model)


def test_snapshot_in_a_cache_may_link_into_its_blobs_and_nowhere_else(model, tmp_path):
    """That is how the cache is made; a link out of the repository is refused there too."""
    repository = tmp_path / "hub" / "models--a--b"
    snapshot, blobs = repository / "snapshots" / "c0ffee", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(model.iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    found = find_snapshot("a/b", "c0ffee", {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert check_model_directory(found.directory)
    (snapshot / "extra.txt").symlink_to(tmp_path / "model" / "config.json")
    assert "leads out" in _refused(found.directory)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "model.safetensors", "config.json", "x"])
def test_pipe_is_refused_and_never_opened(model, name):
    """Opening a pipe for reading would block."""
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    assert name in _refused(model)


@pytest.mark.parametrize(
    "shard", ["../../secret.safetensors", "/etc/secret.safetensors", "sub/x.safetensors", 7, None, ["x"]]
)
def test_index_that_names_files_elsewhere_is_refused(model, tmp_path, shard):
    """An index names files of its own directory."""
    shutil.copy(model / "model.safetensors", tmp_path / "secret.safetensors")
    _set(model / "model.safetensors.index.json", weight_map={"a": "model.safetensors", "b": shard})
    block = _refused(model)
    assert "missing" in block or "damaged" in block


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors.index.json"]
)
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a": ' * 50_000, b"{", b"\xff\xfe", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_json_bomb_is_refused(model, name, content):
    """Depth and garbage in any file of settings: one error."""
    (model / name).write_bytes(content)
    assert str(model) in _refused(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "merges.txt"])
def test_file_of_a_terabyte_is_refused_unread(model, name):
    """A sparse file is told by its size."""
    with (model / name).open("ab") as handle:
        handle.truncate(1 << 40)
    assert name in _refused(model)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 10**12},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": 1000},
        {"num_labels": 10**9},
        {"vocab_size": 2**40},
        {"rope_scaling": {"factor": 10**30}},
    ],
)
def test_absurd_size_is_refused_by_the_header(model, values):
    """Sizes beyond any model, and layers beyond the tensors, are told without torch."""
    _set(model / "config.json", **values)
    assert "config.json" in _refused(model)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 2**30, "head_dim": 2**28},
        {"vocab_size": 2**31 - 1},
        {"intermediate_size": 2**31 - 1},
        {"model_type": "gpt2", "n_positions": 2**31 - 1},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"hidden_act": "os.system"},
        {"dtype": "os"},
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"num_key_value_heads": -1},
        {"architectures": 7, "model_type": ["llama"]},
    ],
)
def test_config_that_does_not_fit_the_weights_is_refused_before_memory_is_asked_for(model, values):
    """The model is built without numbers first; whatever the library makes of the config is one error."""
    import resource

    from codex_ml.models.registry import load_model_directory

    _set(model / "config.json", **values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    with pytest.raises(ModelError):
        load_model_directory(model, "float32", "model.path")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500 << 10


def _safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _header(**tensors: tuple[str, list[Any], list[Any]]) -> bytes:
    return json.dumps({n: {"dtype": d, "shape": s, "data_offsets": o} for n, (d, s, o) in tensors.items()}).encode()


@pytest.mark.parametrize(
    "content",
    [
        _safetensors(b"{}", length=8_000_000_000),
        _safetensors(b"{}", length=2**64 - 1),
        _safetensors(b""),
        b"\0" * 7,
        _safetensors(b"[" * 10_000),
        _safetensors(_header(a=("F32", [2], [0, 8]), b=("F32", [2], [4, 12])), b"\0" * 12),
        _safetensors(_header(a=("F32", [2], [4, 12])), b"\0" * 12),
        _safetensors(_header(a=("F32", [10**9, 10**9], [0, 8])), b"\0" * 8),
        _safetensors(_header(a=("F32", [-1, -2], [0, 8])), b"\0" * 8),
        _safetensors(_header(a=("F32", [2], [0, 8])), b"\0" * 4),
        _safetensors(_header(a=("F32", [2], [0, 8])), b"\0" * 100),
        _safetensors(_header(a=("PICKLE", [2], [0, 8])), b"\0" * 8),
        _safetensors(_header(a=("F32", ["2"], [0, 8])), b"\0" * 8),
        _safetensors(_header(a=("F32", [2], [8, 0])), b"\0" * 8),
        _safetensors(_header(a=(["F32"], [2], [0, 8])), b"\0" * 8),  # type: ignore[arg-type]
        _safetensors(b'{"a": 7}'),
        _safetensors(b'{"a": {}, "a": {}}'),
        _safetensors(b"7"),
    ],
)
def test_weights_with_a_header_that_lies_are_refused(tmp_path, content):
    """Length, offsets, shapes and formats are held against the size of the file."""
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UntrustedFileError):
        read_header(tmp_path / "w.safetensors")


def test_normalizer_that_multiplies_a_text_is_refused(model):
    """Ten replacements of one character by a hundred would make 10^20 of it."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [step] * 10}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "normalizer" in _refused(model)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "os.system"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": 7}}),
        ("tokenizer_config.json", {"eos_token": {"a": 1}}),
        ("tokenizer_config.json", {"model_max_length": "many", "extra_special_tokens": 7}),
        ("tokenizer.json", {"model": {"type": "Evil"}}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated"}}),
    ],
)
def test_tokenizer_that_is_none_is_a_model_error_or_harmless(model, file, values):
    """Whatever the library raises on it, it is one error of ours."""
    from codex_ml.models.registry import load_tokenizer_directory

    _set(model / file, **values)
    # Some of it the library passes over; what it cannot use must come out as our error and as nothing else.
    with contextlib.suppress(ModelError):
        assert load_tokenizer_directory(model, "model.path").encode("a")


def test_tokenizer_config_that_names_a_file_elsewhere_does_not_read_it(model, tmp_path):
    """The tokenizer is that of the directory, whatever its settings say."""
    from codex_ml.models.registry import load_tokenizer_directory

    expected = load_tokenizer_directory(model, "model.path").encode("What is 1 plus 2?")
    os.mkfifo(tmp_path / "elsewhere.json")
    _set(model / "tokenizer_config.json", tokenizer_file=str(tmp_path / "elsewhere.json"), vocab_file="/dev/zero")
    assert load_tokenizer_directory(model, "model.path").encode("What is 1 plus 2?") == expected
