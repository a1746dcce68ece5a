"""Training steps of codex-ml beside transformers.Trainer with peft: same model, records, order, adapter and optimizer.

Run: python benchmarks/training_speed.py [--rounds 5] [--steps 40] [--layout auto|padded]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BATCH = 8
# Steps before the clock starts: allocators and thread pools fill.
WARM = 3
# S: a small Llama in float32.
SHAPE = {
    "vocab_size": 8000,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
ADAPTER = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
LEARNING_RATE = 2e-3


def natural_records(count: int) -> list[tuple[list[int], int]]:
    """Return records as (token ids, prompt length): lengths log-normal, a third to four fifths of each a prompt."""
    draw = random.Random(0)
    records = []
    for _ in range(count):
        length = int(min(1024, max(12, draw.lognormvariate(4.7, 0.75))))
        prompt_length = int(length * draw.uniform(0.3, 0.8))
        # Squared, so that some tokens are frequent and there is something to learn.
        ids = [int(SHAPE["vocab_size"] * draw.random() ** 2) for _ in range(length)]
        records.append((ids, prompt_length))
    return records


def make_model(adapt: Any) -> Any:
    """Return S with seeded weights and an adapter, put on by either side's own way."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False))
    torch.manual_seed(0)
    return adapt(model)


@dataclass
class Clock:
    """Notes wall and CPU time, memory and loss after each step."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    resident_before: int = 0

    def start(self) -> None:
        """Note the memory that model and libraries take before the first step."""
        import psutil

        self.resident_before = int(psutil.Process().memory_info().rss)

    def step(self, loss: float) -> None:
        """Note the end of a step."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.losses.append(loss)

    def report(self) -> dict[str, Any]:
        """Return seconds and memory of the steps after the warm ones."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "wall_seconds": self.wall[-1] - self.wall[WARM - 1],
            "cpu_seconds": self.cpu[-1] - self.cpu[WARM - 1],
            "peak_bytes": peak,
            "peak_above_start_bytes": peak - self.resident_before,
            "losses": self.losses,
        }


def run_codex(steps: int, layout_wish: Any) -> dict[str, Any]:
    """Train with codex-ml's own loop, with its checkpoint at the end."""
    from codex_ml.config.schema.training import TrainingSection
    from codex_ml.data.tokenization.tokenizer import TokenizedRecord
    from codex_ml.modeling.forward import configure_batch_layout
    from codex_ml.peft.adapter_files import write_adapter
    from codex_ml.peft.peft_adapter import apply_lora
    from codex_ml.training.checkpoint.state import TrainerState
    from codex_ml.training.job import TrainingJob
    from codex_ml.training.loop import run_training

    model = make_model(lambda base: apply_lora(base, ADAPTER))
    layout = configure_batch_layout(model, layout_wish)
    records = [
        TokenizedRecord(f"r:{n}", tuple(ids), tuple(at >= prompt for at in range(len(ids))), prompt, "", None)
        for n, (ids, prompt) in enumerate(natural_records(steps * BATCH))
    ]
    settings = TrainingSection(
        micro_batch_size=BATCH, learning_rate=LEARNING_RATE, schedule="constant", logging_steps=10, max_grad_norm=1.0
    )
    clock = Clock()

    class Hook:
        """Tells the clock of each step."""

        def before_step(self, step: int) -> None:
            """Start the clock before the first step."""
            if step == 1:
                clock.start()

        def after_step(self, _step: int, metrics: dict[str, float]) -> None:
            """Note a step."""
            clock.step(metrics["step_loss"])

    with tempfile.TemporaryDirectory() as directory:
        job = TrainingJob(
            model=model,
            records=records,
            pad_token_id=0,
            seed=0,
            settings=settings,
            total_steps=steps,
            checkpoints=Path(directory),
            write_weights=lambda place: write_adapter(model, place),
            layout=layout.kind,
        )
        run_training(job, TrainerState(), [Hook()])
    return clock.report()


def run_trainer(steps: int) -> dict[str, Any]:
    """Train with transformers.Trainer and peft, over the records in the order that codex-ml takes them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from codex_ml.data.batches import window_of_step

    model = make_model(lambda base: get_peft_model(base, LoraConfig(**ADAPTER)))
    records = natural_records(steps * BATCH)
    order = [index for step in range(steps) for index in window_of_step(0, step, len(records), BATCH)]
    clock = Clock()

    def collate(rows: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
        longest = max(len(ids) for ids, _ in rows)
        batch = {
            "input_ids": torch.zeros(len(rows), longest, dtype=torch.int64),
            "attention_mask": torch.zeros(len(rows), longest, dtype=torch.int64),
            "labels": torch.full((len(rows), longest), -100),
        }
        for row, (ids, prompt) in enumerate(rows):
            batch["input_ids"][row, : len(ids)] = torch.tensor(ids)
            batch["attention_mask"][row, : len(ids)] = 1
            batch["labels"][row, prompt : len(ids)] = torch.tensor(ids[prompt:])
        return batch

    class Callback(TrainerCallback):
        """Tells the clock of each step, by the line that Trainer logs for it."""

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_others: Any) -> None:
            if state.global_step == 0:
                clock.start()

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_others: Any) -> None:
            if "loss" in logs:
                clock.step(float(logs["loss"]))

    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
            dataloader_pin_memory=False,
            use_cpu=True,
            seed=0,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=[records[index] for index in order],
            data_collator=collate,
            callbacks=[Callback()],
        )
        trainer.train()
    return clock.report()


def measure(side: str, steps: int, layout: str) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    command = [sys.executable, __file__, "--side", side, "--steps", str(steps), "--layout", layout]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def padding_share(steps: int) -> tuple[int, int]:
    """Return tokens, and positions of the padded batches."""
    from codex_ml.data.batches import window_of_step

    lengths = [len(ids) for ids, _ in natural_records(steps * BATCH)]
    windows = [[lengths[i] for i in window_of_step(0, step, len(lengths), BATCH)] for step in range(steps)]
    return sum(lengths), sum(max(window) * len(window) for window in windows)


def main() -> None:
    """Measure both sides by turns and print medians, ratios and how far the loss curves lie apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--layout", choices=["auto", "ragged", "padded"], default="auto")
    parser.add_argument("--side", choices=["codex", "trainer"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side is not None:
        print(json.dumps(run_codex(asked.steps, asked.layout) if asked.side == "codex" else run_trainer(asked.steps)))
        return
    tokens, positions = padding_share(asked.steps)
    print(f"{asked.steps} steps of {BATCH} records, {tokens:,} tokens, {tokens / positions:.0%} of a padded batch")
    found: dict[str, list[dict[str, Any]]] = {"trainer": [], "codex": []}
    for round_number in range(1, asked.rounds + 1):
        for side, reports in found.items():
            reports.append(measure(side, asked.steps, asked.layout))
            last = reports[-1]
            print(f"round {round_number} {side}: {last['wall_seconds']:.2f} s", file=sys.stderr)
    medians = {}
    print(f"{'':10}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'above start MiB':>17}")
    for side, reports in found.items():
        names = ("wall_seconds", "cpu_seconds", "peak_bytes", "peak_above_start_bytes")
        medians[side] = {name: statistics.median(report[name] for report in reports) for name in names}
        wall, cpu, peak, above = medians[side].values()
        print(f"{side:10}{wall:>9.2f}{cpu:>9.2f}{peak / 2**20:>10.0f}{above / 2**20:>17.0f}")
    ratios = {name: medians["trainer"][name] / medians["codex"][name] for name in medians["codex"]}
    print(f"wall {ratios['wall_seconds']:.2f} times as fast, CPU {ratios['cpu_seconds']:.2f} times as little")
    print(f"peak memory {1 / ratios['peak_bytes']:.2f} of it, above start {1 / ratios['peak_above_start_bytes']:.2f}")
    pairs = list(zip(found["trainer"][0]["losses"], found["codex"][0]["losses"], strict=True))
    print(
        f"loss {pairs[0][1]:.4f} to {pairs[-1][1]:.4f}; largest difference {max(abs(a - b) / a for a, b in pairs):.1e}"
    )


if __name__ == "__main__":
    main()
