"""What all tests share: offline switches set before any hub library is imported, one thread, tiny models on disk."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from codex_ml.offline import go_offline

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

go_offline()
# The suite shares few cores, and a fixed thread count keeps sums in one order; children inherit it. Through the
# environment, because torch must not be imported here: half of the tests never need it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """Return the root of the checkout."""
    return REPOSITORY_ROOT


@pytest.fixture(scope="session")
def tiny_model_maker() -> ModuleType:
    """Return the module ``tools/make_tiny_model.py``, loaded by its location because tools/ is no package."""
    specification = importlib.util.spec_from_file_location(
        "make_tiny_model", REPOSITORY_ROOT / "tools" / "make_tiny_model.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_llama_directory(tiny_model_maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a seeded 2-layer llama (untied head) and its tokenizer; treat it as read-only."""
    return tiny_model_maker.make_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama", seed=0)


@pytest.fixture(scope="session")
def tiny_gpt2_directory(tiny_model_maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a seeded 2-layer GPT-2 (tied head, Conv1D) and its tokenizer; treat it as read-only."""
    return tiny_model_maker.make_tiny_model("gpt2", tmp_path_factory.mktemp("tiny") / "gpt2", seed=0)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_llama_directory: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the tiny models: byte-level BPE, pad and end-of-sequence apart, chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama_directory, local_files_only=True)
