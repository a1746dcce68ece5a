"""The plan of a dry run beside what its run takes: bytes of tensors, peak of the process, seconds of the steps.

Run: python benchmarks/plan.py [--only NAME ...] [--steps 16]

Each configuration is a process of its own, three times: the dry run; the run with its tensors counted, which slows it;
and the run as it is, with a clock and the operating system's account of its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent.parent / "examples" / "minimal"
# Of models from scratch: llama S (7 million parameters) and M (135 million), GPT-2 and Qwen2 between them.
LLAMA_S = {"vocab_size": 8000, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
LLAMA_M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
QWEN = {
    "vocab_size": 16000,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "S": ("llama", {**LLAMA_S, "num_attention_heads": 4}),
    "M": ("llama", LLAMA_M),
    "G": ("gpt2", {"vocab_size": 8000, "n_embd": 256, "n_layer": 4, "n_head": 4}),
    "Q": ("qwen2", QWEN),
}
CONFIGURATIONS: dict[str, tuple[str, list[str]]] = {
    "S": ("S", []),
    "S 16 records, accumulated": ("S", ["training.micro_batch_size=16", "training.gradient_accumulation_steps=2"]),
    "S padded": ("S", ["model.batch_layout=padded"]),
    "S all weights": ("S", ["adapter.kind=none"]),
    "S checkpointed": ("S", ["training.gradient_checkpointing=true", "training.micro_batch_size=32"]),
    "GPT-2": ("G", []),
    "Qwen2": ("Q", []),
    "Qwen2 all weights, averaged": ("Q", ["adapter.kind=none", "training.ema_decay=0.9"]),
    "Qwen2 bfloat16": ("Q", ["model.dtype=bfloat16"]),
    "M bfloat16": ("M", ["model.dtype=bfloat16", "training.micro_batch_size=2"]),
    "M by tokens": ("M", ["model.dtype=float32", "training.tokens_per_micro_batch=512"]),
    "M all weights": ("M", ["adapter.kind=none", "training.micro_batch_size=1"]),
}
# Of M, a step takes seconds.
FEWER_STEPS_OF_M = 2


def make_model(name: str, directory: Path) -> None:
    """Write a model of a shape with seeded weights and the tokenizer of the example."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, shape = SHAPES[name]
    config = AutoConfig.for_model(
        family, **shape, max_position_embeddings=2048, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    for file in (EXAMPLE / "tokenizer").iterdir():
        if file.is_file():
            shutil.copy(file, directory / file.name)


def make_records(file: Path) -> None:
    """Write 400 records of natural lengths: so many order notes of the example after one another."""
    draw = random.Random(0)
    notes = [json.loads(line) for line in (EXAMPLE / "data.jsonl").read_text("utf-8").splitlines()]
    with file.open("w", encoding="utf-8") as out:
        for _ in range(400):
            some = draw.sample(notes, k=max(1, min(20, round(draw.lognormvariate(1.3, 0.7)))))
            row = {key: " ".join(str(note[key]) for note in some) for key in ("prompt", "completion")}
            out.write(json.dumps(row) + "\n")


def work(part: str, overrides: list[str]) -> dict[str, Any]:
    """Do one part in this process."""
    import torch

    from codex_ml.config.compose import compose
    from codex_ml.config.validate import validate_train
    from codex_ml.modeling.memory_estimate import PeakMemory
    from codex_ml.recipes.train.job import TrainDependencies, plan_only, train

    torch.set_num_threads(2)
    config = validate_train(compose("train", overrides=overrides))
    dependencies = TrainDependencies(emit=lambda _: None)
    if part == "dry":
        return {"lines": plan_only(config, dependencies)}
    if part == "count":
        with PeakMemory([]) as memory:
            train(config, dependencies)
        return {"bytes": memory.peak_bytes}
    ends: list[float] = []

    def note(_step: int) -> bool:
        ends.append(time.perf_counter())
        return False

    train(config, dependencies, stop_at=note)
    return {"seconds": (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1)}


def run_part(part: str, overrides: list[str]) -> tuple[dict[str, Any], int]:
    """Do one part in a process of its own; return its answer and its peak in bytes."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, __file__, "--part", part, *overrides], stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode:
        raise SystemExit(f"{part} of {overrides} ended with {process.returncode}: {text[-500:]}")
    return json.loads(text.splitlines()[-1]), used.ru_maxrss * 1024


def planned(lines: list[str]) -> tuple[float, float]:
    """Read MiB and seconds from the lines of a dry run."""
    units = {"KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10}
    (memory,) = (line for line in lines if line.startswith("memory of tensors (counted): "))
    number, unit = memory.split(": ")[1].split(" = ")[0].split()
    (spoken,) = (line for line in lines if line.startswith("time: about "))
    words = spoken.removeprefix("time: about ").split(" for ")[0].split()
    pairs = zip(words[::2], words[1::2], strict=True)
    seconds = sum(float(value) * {"s": 1, "min": 60, "h": 3600}[name] for value, name in pairs)
    return float(number) * units[unit], seconds


def main() -> None:
    """Print a line of JSON for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["dry", "count", "time"], help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=list(CONFIGURATIONS))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(work(arguments.part, arguments.overrides)))
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_records(root / "data.jsonl")
        for name in arguments.only or CONFIGURATIONS:
            model, more = CONFIGURATIONS[name]
            if not (root / model).exists():
                make_model(model, root / model)
            steps = arguments.steps // FEWER_STEPS_OF_M if model == "M" else arguments.steps
            overrides = [f"model.path={root / model}", f"data.path={root / 'data.jsonl'}"]
            overrides += [f"training.max_steps={steps}", f"run.output_dir={root / 'runs'}", *more]
            dry, _ = run_part("dry", overrides)
            counted, _ = run_part("count", overrides)
            timed, peak = run_part("time", overrides)
            mebibytes, seconds = planned(dry["lines"])
            found = {
                "name": name,
                "planned_mib": round(mebibytes),
                "counted_mib": round(counted["bytes"] / 2**20),
                "memory_ratio": round(mebibytes * 2**20 / counted["bytes"], 3),
                "process_mib": round(peak / 2**20),
                "planned_seconds": round(seconds, 1),
                "seconds": round(timed["seconds"], 1),
                "time_ratio": round(seconds / timed["seconds"], 2),
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
