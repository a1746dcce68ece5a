"""Build data sets with one tokenizer and one filter, from pairs that differ by a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.config.schema.data import DataSection
from codex_ml.data.dataset import Dataset, build_dataset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Write = Callable[..., Path]
Filter = Callable[[str], Any]


def numbered_pairs(count: int, completion: str = "four cups") -> list[dict[str, str]]:
    """Return pairs whose prompts differ by their number."""
    return [{"prompt": f"How many {number}? ", "completion": completion} for number in range(count)]


class Build:
    """Builder with one tokenizer and one filter that keeps the reported findings."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, filter_text: Filter) -> None:
        self.tokenizer = tokenizer
        self.filter_text = filter_text
        self.findings: list[tuple[str, str, str]] = []

    def __call__(self, splits: tuple[str, ...] = ("train", "valid", "test"), **section: Any) -> Dataset:
        """Build the requested splits."""
        return build_dataset(DataSection(**section), self.tokenizer, self.filter_text, self._note, splits)

    def _note(self, record_id: str, field: str, findings: Any, action: str) -> None:
        self.findings.extend((record_id, f"{field}@{finding.start}", action) for finding in findings)
