"""Measures what a start on a large file costs: without a cache, with an empty one, and with a full one."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from split_throughput import Measurement, measure, write_records

_VOCABULARY = 32_000
_SAMPLE_RECORDS = 20_000


def write_tokenizer(directory: Path, records: Path) -> None:
    """Write a byte-level BPE tokenizer of 32,000 tokens, as fine as those in use, trained on the first records."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with records.open("rb") as handle:
        values = (json.loads(line) for line, _ in zip(handle, range(_SAMPLE_RECORDS), strict=False))
        backend.train_from_iterator((value[key] for value in values for key in ("prompt", "completion")), trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>").save_pretrained(directory)


def start(records: Path, tokenizer: Path, place: Path, cache: str) -> Measurement:
    """Return what a run of one step costs, from the start of its process to its end."""
    overrides = [
        "model.preset=llama-tiny",
        "adapter=none",
        f"model.tokenizer={tokenizer}",
        f"data.path={records}",
        "data.on_overlong=drop",
        "data.max_bad_share=1",
        f"data.cache_dir={cache}",
        "training.max_steps=1",
        f"run.output_dir={place}",
    ]
    return measure([sys.executable, "-m", "codex_ml.cli.main", "train", *overrides])


def run(megabytes: float, with_uncached: bool) -> dict[str, Measurement]:
    """Make a file, start runs on it, and return what each start cost."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        records, small, tokenizer = place / "records.jsonl", place / "small.jsonl", place / "tokenizer"
        write_records(records, round(megabytes * 1e6))
        write_records(small, 100_000)
        write_tokenizer(tokenizer, records)
        cache = str(place / "cache")
        figures = {"a file of 0.1 MB": start(small, tokenizer, place / "runs", "null")}
        if with_uncached:
            figures["without a cache"] = start(records, tokenizer, place / "runs", "null")
        figures["first start"] = start(records, tokenizer, place / "runs", cache)
        figures["second start"] = start(records, tokenizer, place / "runs", cache)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200.0, help="size of the file (default: 200)")
    parser.add_argument("--with-uncached", action="store_true", help="measure a start without a cache too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    figures = run(options.megabytes, options.with_uncached)
    if options.json:
        print(json.dumps({name: asdict(cost) for name, cost in figures.items()}, indent=2))
        return
    print("| start | wall s | CPU s | peak MB |\n|---|---:|---:|---:|")
    for name, cost in figures.items():
        print(f"| {name} | {cost.wall_seconds:.1f} | {cost.cpu_seconds:.1f} | {cost.peak_bytes / 1e6:.0f} |")


if __name__ == "__main__":
    main()
