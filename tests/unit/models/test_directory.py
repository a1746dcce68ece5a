"""A model directory is checked before a weight is read; each message says what was looked for and what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codex_ml.errors import ModelError
from codex_ml.io.atomic import file_digest
from codex_ml.models.directory import check_model_directory, check_tokenizer_directory, model_digest

# The shortest file of the format: a header of two bytes, and no tensor.
NO_WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory that looks like a model."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "model.safetensors").write_bytes(NO_WEIGHTS)
    (path / "tokenizer.json").write_text("{}")
    return path


def test_check_model_directory_whole_returns_its_config(directory: Path) -> None:
    """Nothing to complain of."""
    assert check_model_directory(directory) == {"model_type": "llama"}


def test_check_model_directory_absent_says_what_is_near_and_how_to_bring_it(directory: Path) -> None:
    """A misspelt path is met with what lies beside it."""
    wanted = directory.parent / "modell"
    with pytest.raises(ModelError) as caught:
        check_model_directory(wanted)
    assert caught.value.what == f"model.path: no model directory at {wanted}"
    assert caught.value.why == f"it does not exist; {directory.parent} holds model"
    assert "hf download" in caught.value.fix


def test_check_model_directory_absent_with_parents_names_the_nearest_that_exists(tmp_path: Path) -> None:
    """The nearest existing parent is listed."""
    with pytest.raises(ModelError) as caught:
        check_model_directory(tmp_path / "a" / "b")
    assert caught.value.why == f"it does not exist; {tmp_path} holds nothing"


def test_check_model_directory_is_a_file_says_so(directory: Path) -> None:
    """A single file is no model."""
    with pytest.raises(ModelError) as caught:
        check_model_directory(directory / "model.safetensors")
    assert "that is a file" in caught.value.why


def test_check_model_directory_no_config_says_what_is_there(directory: Path) -> None:
    """The listing shows what was found instead."""
    (directory / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json in") as caught:
        check_model_directory(directory)
    assert "there is model.safetensors, tokenizer.json" in caught.value.why


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not valid JSON"), ("[]", "names no model_type"), ("{}", "names no model_type")],
)
def test_check_model_directory_damaged_config_is_named(directory: Path, content: str, message: str) -> None:
    """A broken config is not a missing one."""
    (directory / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        check_model_directory(directory)


def test_check_model_directory_only_pickles_are_refused(directory: Path) -> None:
    """Pickles can run code; they are named and never read."""
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors weights") as caught:
        check_model_directory(directory)
    assert caught.value.why == "its weights are pickles (pytorch_model.bin), which can run code when loaded"


def test_check_model_directory_no_weights_says_what_was_looked_for(directory: Path) -> None:
    """What was looked for, and what is there."""
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        check_model_directory(directory)
    assert caught.value.why == "looked for *.safetensors; there is config.json, tokenizer.json"


def test_check_model_directory_missing_shard_is_named(directory: Path) -> None:
    """Half of a sharded model is no model; a whole one passes, and a torn index is damage."""
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(ModelError, match="1 of 2 weight files are missing") as caught:
        check_model_directory(directory)
    assert "model-2.safetensors" in caught.value.why
    (directory / "model-2.safetensors").write_bytes(NO_WEIGHTS)
    check_model_directory(directory)
    index.write_text('{"weight_map": []}')
    with pytest.raises(ModelError, match="is damaged"):
        check_model_directory(directory)


def test_check_model_directory_own_code_is_refused(directory: Path) -> None:
    """Code that comes with a model is never run."""
    (directory / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModelForCausalLM": "modeling.X"}}')
    with pytest.raises(ModelError, match="needs its own Python code"):
        check_model_directory(directory)


def test_check_model_directory_with_adapter_is_refused(directory: Path) -> None:
    """Transformers would load whatever base the adapter names instead."""
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(ModelError, match="holds an adapter, not a base model"):
        check_model_directory(directory)


def test_check_model_directory_no_tokenizer_names_the_files(directory: Path) -> None:
    """A model without a tokenizer cannot be used."""
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"model.path: no tokenizer in") as caught:
        check_model_directory(directory)
    assert caught.value.why == (
        "looked for tokenizer.json, tokenizer.model, vocab.json; there is config.json, model.safetensors"
    )


def test_check_tokenizer_directory_absent_names_its_key(tmp_path: Path) -> None:
    """The key of the config that is wrong leads the message."""
    with pytest.raises(ModelError, match=r"model.tokenizer: no tokenizer directory at"):
        check_tokenizer_directory(tmp_path / "absent", "model.tokenizer")


def test_model_digest_takes_the_digests_it_is_given(directory: Path) -> None:
    """A cache may stand in for reading; it is asked for config and weights."""
    asked: list[str] = []

    def digest_of(path: Path) -> str:
        asked.append(path.name)
        return file_digest(path)

    assert model_digest(directory, digest_of) == model_digest(directory)
    assert asked == ["config.json", "model.safetensors"]


def test_model_digest_depends_on_weights_and_config_only(directory: Path) -> None:
    """Tokenizer, training state and place do not change it; one byte of the weights does."""
    before = model_digest(directory)
    copy = Path(shutil.copytree(directory, directory.parent / "copy"))
    (copy / "tokenizer.json").write_text('{"other": 1}')
    (copy / "training_state.safetensors").write_bytes(b"adam")
    assert model_digest(copy) == before
    (copy / "model.safetensors").write_bytes(b"weightz")
    assert model_digest(copy) != before
    (copy / "model.safetensors").write_bytes(b"weights")
    (copy / "config.json").write_text(json.dumps({"model_type": "llama", "rope_theta": 5}))
    assert model_digest(copy) != before
