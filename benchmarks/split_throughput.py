"""Measures `codex-ml data split` beside `datasets` (load, train_test_split twice, to_json) on one file, in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What a user of `datasets` writes for the same task; the progress bars are off, the hub is off.
OTHERS = """
import sys
from datasets import disable_progress_bars, load_dataset
disable_progress_bars()
source, out, cache = sys.argv[1:]
rows = load_dataset("json", data_files=source, split="train", cache_dir=cache)
first = rows.train_test_split(test_size=0.1, seed=7)
second = first["test"].train_test_split(test_size=0.5, seed=7)
for name, part in (("train", first["train"]), ("valid", second["train"]), ("test", second["test"])):
    part.to_json(f"{out}/{name}.jsonl")
"""


@dataclass(frozen=True)
class Measurement:
    """What one process cost from its start to its end."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def write_records(path: Path, size_bytes: int, seed: int = 0) -> None:
    """Write prompt/completion records of 100 to 1,900 bytes: plain, escaped, with quotes, colons and line breaks."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyzäéß", k=chance.randint(2, 9))) for _ in range(5000)]
    written = 0
    with path.open("wb") as handle:
        while written < size_bytes:
            prompt = " ".join(chance.choices(words, k=chance.randint(5, 60)))
            completion = " ".join(chance.choices(words, k=chance.randint(5, 100)))
            if chance.random() < 0.2:
                completion += '\nsaid: "yes", then {"ok": true}'
            row = {"prompt": prompt, "completion": completion}
            line = json.dumps(row, ensure_ascii=chance.random() < 0.5).encode("utf-8") + b"\n"
            written += handle.write(line)


def measure(command: Sequence[str]) -> Measurement:
    """Run a process to its end on one thread, offline, and return its cost; a failure ends the measurement."""
    switches = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **switches}, stdout=subprocess.DEVNULL)
    # Of this child alone; getrusage of all children would give the peak of the largest so far.
    _, status, usage = os.wait4(process.pid, 0)
    wall_seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} … ended with exit code {process.returncode}; what it said stands above")
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return Measurement(wall_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit_bytes)


def best_of(runs: Sequence[Measurement]) -> Measurement:
    """Return the least of each cost: what a busy machine adds is no cost of the program."""
    return Measurement(
        min(run.wall_seconds for run in runs),
        min(run.cpu_seconds for run in runs),
        min(run.peak_bytes for run in runs),
    )


def measure_all(
    source: Path, directory: Path, datasets_python: str | None, repeats: int
) -> dict[str, list[Measurement]]:
    """Measure each program as often as asked, taking turns, so that a change of load meets all of them."""
    split = [sys.executable, "-m", "codex_ml.cli.main", "data", "split", str(source), "--seed", "7"]
    split += ["--ratios", "0.9,0.05,0.05", "--out"]
    programs: dict[str, Callable[[Path], list[str]]] = {
        "codex-ml": lambda out: [*split, str(out / "splits")],
        "codex-ml --exact-sizes": lambda out: [*split, str(out / "splits"), "--exact-sizes"],
        "codex-ml --group-by prompt": lambda out: [*split, str(out / "splits"), "--group-by", "prompt"],
    }
    if datasets_python is not None:
        programs["datasets"] = lambda out: [datasets_python, "-c", OTHERS, str(source), str(out), str(out / "cache")]
    runs: dict[str, list[Measurement]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, command in programs.items():
            out = directory / "out"
            out.mkdir()
            runs[name].append(measure(command(out)))
            shutil.rmtree(out)
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or take a file, measure, print a table, and JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200.0, help="size of the file that is made (default: 200)")
    parser.add_argument("--file", type=Path, help="take this JSON Lines file instead")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the best counts (default: 3)")
    parser.add_argument("--datasets-python", metavar="PYTHON", help="interpreter of an environment that has `datasets`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="codex-ml-benchmark-") as name:
        source = chosen.file or Path(name) / "records.jsonl"
        if chosen.file is None:
            write_records(source, int(chosen.megabytes * 1e6))
        megabytes = source.stat().st_size / 1e6
        runs = measure_all(source.resolve(), Path(name), chosen.datasets_python, chosen.repeats)
    best = {program: best_of(measured) for program, measured in runs.items()}
    if chosen.json:
        print(json.dumps({"megabytes": megabytes, **{name: vars(cost) for name, cost in best.items()}}, indent=2))
        return 0
    print(f"{megabytes:.1f} MB, best of {chosen.repeats}; {platform.platform()}, {os.cpu_count()} cores, {_versions()}")
    print(f"{'':<28}{'wall s':>8}{'MB/s':>8}{'CPU s':>8}{'CPU MB/s':>10}{'peak MB':>9}")
    for program, cost in best.items():
        print(
            f"{program:<28}{cost.wall_seconds:>8.2f}{megabytes / cost.wall_seconds:>8.1f}{cost.cpu_seconds:>8.2f}"
            f"{megabytes / cost.cpu_seconds:>10.1f}{cost.peak_bytes / 1e6:>9.0f}"
        )
    return 0


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in ("codex-ml", "orjson"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
