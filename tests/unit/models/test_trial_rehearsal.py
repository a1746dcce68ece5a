"""The model of a directory without its numbers, and what its headers say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codex_ml.models.trial import rehearse, stored_dtype


@pytest.fixture
def copy(tmp_path: Path, tiny_llama_directory: Path) -> Path:
    """Return a model that may be changed."""
    return shutil.copytree(tiny_llama_directory, tmp_path / "model")


def test_rehearse_has_the_shapes_of_the_model_and_no_numbers(tiny_llama_directory: Path) -> None:
    """Every parameter of the file, in the type that is asked for."""
    shell = rehearse(tiny_llama_directory, "model.path", torch.bfloat16)
    shapes = {name: tuple(value.shape) for name, value in shell.named_parameters()}
    stored = {name: tuple(value.shape) for name, value in load_file(tiny_llama_directory / "model.safetensors").items()}
    assert stored.items() <= shapes.items()
    assert {parameter.device.type for parameter in shell.parameters()} == {"meta"}
    assert {parameter.dtype for parameter in shell.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_stored_dtype_is_that_of_all_tensors(copy: Path, dtype: torch.dtype) -> None:
    """By the headers alone."""
    file = copy / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert stored_dtype(copy, "model.path") == str(dtype).removeprefix("torch.")


def test_stored_dtype_of_several_is_none(copy: Path) -> None:
    """Some tensors in another format than the rest: none is that of the model."""
    file = copy / "model.safetensors"
    tensors = load_file(file)
    first = sorted(tensors)[0]
    save_file({**tensors, first: tensors[first].to(torch.bfloat16)}, file, metadata={"format": "pt"})
    assert stored_dtype(copy, "model.path") is None
