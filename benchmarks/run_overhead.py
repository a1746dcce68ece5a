"""What tracking, telemetry, safety and checkpoints cost a run: the job of `codex-ml train` beside its bare loop.

Run: python benchmarks/run_overhead.py [--rounds 5] [--config-name examples/minimal]

Both sides take the same steps in one process, by turns. Of each step the shortest of all rounds counts, so that what
else the machine does falls out; the shares are of the sums over all steps. Validation is off on both sides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.config.compose import compose
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_train
from codex_ml.io.clock import utc_now

OVERRIDES = ["training.eval_steps=null", "training.logging_steps=10"]


class Stamps:
    """Seconds of each step, from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    def step(self, *_ignored: Any) -> bool:
        """Note the end of a step; never asks to stop."""
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now
        return False


def whole_job(config: TrainConfig) -> list[float]:
    """Train as the command does, and return the seconds of each step after the first, checkpoints with them."""
    from codex_ml.recipes.train.job import TrainDependencies, train

    stamps = Stamps()
    # Asked once a step before a checkpoint is written, so that a checkpoint counts for the step after it.
    train(config, TrainDependencies(emit=lambda _: None), stop_at=stamps.step)
    return stamps.seconds


def bare_loop(config: TrainConfig) -> list[float]:
    """Train the same steps with no hook but the clock, and one checkpoint at the end, which no step pays for."""
    from codex_ml.recipes.inputs import BypassRecorder
    from codex_ml.recipes.preparation import prepare
    from codex_ml.recipes.train.setup import build_trainable_model
    from codex_ml.training.checkpoint.state import TrainerState
    from codex_ml.training.job import TrainingJob
    from codex_ml.training.loop import TrainerDependencies, run_training

    prepared = prepare(config, lambda _: None, bypass_recorder=BypassRecorder("train", lambda: "benchmark", utc_now))
    trainable = build_trainable_model(config, prepared.tokenizer)
    stamps = Stamps()

    class Hook:
        """Tells the clock of each step."""

        def before_step(self, _step: int) -> None:
            """Nothing."""

        def after_step(self, _step: int, _metrics: dict[str, float]) -> None:
            """Note a step."""
            stamps.step()

    with tempfile.TemporaryDirectory() as directory:
        job = TrainingJob(
            model=trainable.model,
            records=prepared.dataset.require("train"),
            pad_token_id=prepared.pad_token_id,
            seed=config.run.seed,
            settings=config.training.model_copy(update={"save_steps": None}),
            total_steps=config.training.max_steps or 0,
            checkpoints=Path(directory),
            write_weights=trainable.write_weights,
            layout=trainable.kernels.layout.kind,
        )
        # Memory is asked of the system once a step for the log: telemetry, so not here.
        run_training(job, TrainerState(), [Hook()], None, TrainerDependencies(memory_bytes=lambda: 0))
    return stamps.seconds


def shortest(rounds: list[list[float]]) -> float:
    """Return the sum over all steps of the shortest of each."""
    return sum(min(step) for step in zip(*rounds, strict=True))


def main() -> None:
    """Print both sums and the share as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--config-name", default="examples/minimal")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE")
    arguments = parser.parse_args()
    sides: dict[str, Callable[[TrainConfig], list[float]]] = {"whole": whole_job, "bare": bare_loop}
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as directory:
        asked = [*OVERRIDES, *arguments.overrides, f"run.output_dir={directory}"]
        config = validate_train(compose("train", arguments.config_name, overrides=asked))
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                found[name].append(side(config))
    whole, bare = (shortest(found[name]) for name in ("whole", "bare"))
    result = {"steps": len(found["bare"][0]), "whole_seconds": whole, "bare_seconds": bare, "share": whole / bare - 1}
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
