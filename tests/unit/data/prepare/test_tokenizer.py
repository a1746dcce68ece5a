"""Training a tokenizer on records refuses texts that make the library panic."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.data.prepare.tokenizer import train_byte_level_bpe
from codex_ml.data.tokenization.encoding import MAX_SPACE_RUN
from codex_ml.errors import DataError


def test_train_text_beyond_the_bounds_is_refused(tmp_path: Path) -> None:
    """The error contains the length, and no tokenizer is written."""
    texts = ["hello world", " " * (MAX_SPACE_RUN + 1) + "x"]
    with pytest.raises(DataError, match="run of white space that is too long"):
        train_byte_level_bpe(texts, 300, tmp_path)
    assert list(tmp_path.iterdir()) == []
