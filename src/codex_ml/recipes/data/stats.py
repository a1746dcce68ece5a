"""What files of records hold, with tokens counted by the tokenizer of a model: the job behind `codex-ml data stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codex_ml.data.inspect.statistics import CountTokens, StatisticsOptions, describe_files, read_figures
from codex_ml.data.records.formats import Record


def collect_statistics(
    paths: Sequence[Path], options: StatisticsOptions, tokenizer_directory: Path | None = None
) -> dict[str, Any]:
    """Read files and return their figures and what they have in common; see `describe_files`.

    Records are counted with the bytes of the file, before any safety filter and truncation.

    Parameters
    ----------
    paths : sequence of Path
        Files of records; the one that is trained on first.
    options : StatisticsOptions
        How they are read.
    tokenizer_directory : Path, optional
        Directory of a model or a tokenizer; without it no tokens are counted.

    Raises
    ------
    DataError, ModelError
        If a file or the tokenizer cannot be read, or lines are faulty.
    """
    count_tokens = None if tokenizer_directory is None else _token_counter(tokenizer_directory)
    return describe_files(
        [read_figures(path, options, count_tokens, name) for path, name in zip(paths, _names_of(paths), strict=True)],
        options,
    )


def _token_counter(directory: Path) -> CountTokens:
    # Importing the tokenizers of transformers takes seconds, and most figures need none.
    from codex_ml.data.tokenization.tokenizer import RecordTokenizer
    from codex_ml.models.registry import load_tokenizer_directory

    tokenizer = RecordTokenizer(load_tokenizer_directory(directory, "--model"))

    def count(record_id: str, record: Record) -> tuple[int, int]:
        tokenized = tokenizer.tokenize(record_id, record)
        return len(tokenized.input_ids), tokenized.supervised_count

    return count


def _names_of(paths: Sequence[Path]) -> list[str]:
    """Return what each file is called in the report: its name, or its path where another has the same name."""
    counts = Counter(path.name for path in paths)
    return [path.name if counts[path.name] == 1 else str(path) for path in paths]
