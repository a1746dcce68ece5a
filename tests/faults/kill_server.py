"""Trains in children forked from a process that has computed nothing, kills them where it is told, and resumes them.

Started as a program with the overrides of the run as arguments. Reads ``{"batch": n, "scenarios": […]}``, one a line,
answers each scenario with one line and the batch with a last one, ``{"batch": n}``. A scenario is
``{"directory": …, "kills": [kill, …]}``: the first process is killed by the first kill, the one that resumes it by the
second, and so on; the last one is left alone. A kill is ``{"operation": n}`` (before the n-th storage operation),
``{"operation": n, "half": true}`` (in the middle of it) or ``{"seconds": t}``.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.offline import go_offline

go_offline()

import torch  # noqa: E402 - after the switches

from codex_ml.config.compose import compose  # noqa: E402
from codex_ml.config.schema.root import TrainConfig  # noqa: E402
from codex_ml.config.validate import validate_train  # noqa: E402
from codex_ml.errors import CodexError  # noqa: E402
from codex_ml.io.atomic import Storage  # noqa: E402
from codex_ml.monitoring.codex_logging import read_ndjson  # noqa: E402
from codex_ml.recipes.train.job import TrainDependencies, train  # noqa: E402
from codex_ml.recipes.train.run_files import current_audit  # noqa: E402
from codex_ml.runs.checkpoints import list_checkpoints, read_pointer  # noqa: E402
from codex_ml.runs.layout import find_runs  # noqa: E402
from codex_ml.runs.manifest import verify_checkpoint  # noqa: E402
from codex_ml.safety.filters import SafetyFilters  # noqa: E402
from codex_ml.safety.policy import load_policy  # noqa: E402

WORKERS = 2
CHILD_LIMIT_SECONDS = 120.0
FINAL_FILES = ("adapter_model.safetensors", "training_state.safetensors", "trainer_state.json")
# Measured while a step is made; all else in a log is a function of the step.
TIMED = ("supervised_tokens_per_second", "memory_bytes")
_POLL_SECONDS = 0.002


class KillingStorage(Storage):
    """Counts its operations, and kills its own process before or in the middle of one of them."""

    def __init__(self, kill: Mapping[str, Any]) -> None:
        self.kinds: list[str] = []
        self._at = kill.get("operation")
        self._half = kill.get("half", False)
        self._own: set[str] = set()

    def open_file(self, path: Path, flags: int) -> int:
        """A file that is made or emptied counts."""
        if flags & os.O_CREAT and (flags & os.O_TRUNC or not path.exists()):
            self._count("create")
        descriptor = super().open_file(path, flags)
        if flags & os.O_CREAT:
            self._own.add(str(path))
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Half of it: the first half of the bytes."""
        self._count("write", lambda: super(KillingStorage, self).write(descriptor, data[: len(data) // 2]))
        return super().write(descriptor, data)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cutting counts."""
        self._count("truncate")
        super().truncate(descriptor, size_bytes)

    def fsync(self, descriptor: int) -> None:
        """Half of it, where a library wrote the file: as if it had been killed there, in the middle.

        Nothing is forced to a disk: a kill keeps what the kernel has, and some ten thousand times would take minutes.
        """
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_file() and str(path) not in self._own:
            self._count("sync of a library's file", lambda: os.truncate(path, path.stat().st_size // 2))
        else:
            self._count("sync")

    def replace(self, source: Path, target: Path) -> None:
        """A rename counts."""
        self._count("rename")
        super().replace(source, target)

    def unlink(self, path: Path) -> None:
        """A deletion counts."""
        self._count("unlink")
        super().unlink(path)

    def make_one_directory(self, path: Path) -> None:
        """A new directory counts."""
        self._count("make directory")
        super().make_one_directory(path)

    def remove_tree(self, path: Path) -> None:
        """Half of it: half of the files."""
        self._count("remove tree", lambda: _remove_half(path))
        super().remove_tree(path)

    def _count(self, kind: str, half_of_it: Callable[[], object] | None = None) -> None:
        self.kinds.append(kind)
        if len(self.kinds) == self._at:
            if self._half:
                assert half_of_it is not None, f"{kind} has no middle"
                half_of_it()
            os.kill(os.getpid(), signal.SIGKILL)


def _remove_half(path: Path) -> None:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in files[: (len(files) + 1) // 2]:
        file.unlink()


def run_scenario(config: TrainConfig, scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run and kill and resume as a scenario says, and return how each process ended and what is there at the end."""
    directory = Path(scenario["directory"])
    directory.mkdir()
    ended: list[str] = []
    started = time.monotonic()
    for number, kill in enumerate([*scenario["kills"], {}]):
        ended.append(_run_child(config, directory, number > 0, kill))
    answer: dict[str, Any] = {"ended": ended, "seconds": time.monotonic() - started}
    try:
        answer["outcome"] = outcome(directory)
    except (CodexError, OSError, ValueError, IndexError, AssertionError) as error:
        answer["fault"] = f"{type(error).__name__}: {error}"
    if ended[-1] != "exit 0":
        answer["fault"] = (directory / "said.txt").read_text("utf-8")[-1500:]
    return answer


def outcome(directory: Path) -> dict[str, Any]:
    """Return, as digests, all of a finished run that must not depend on what happened on the way."""
    layout, record = find_runs(directory / "runs")[0]
    leftovers = [path.name for path in layout.directory.rglob(".*")]
    checkpoints = list_checkpoints(layout.checkpoints)
    for _, checkpoint in checkpoints:
        verify_checkpoint(checkpoint)
    final = checkpoints[-1][1]
    pointers = [read_pointer(layout.checkpoints, pointer) for pointer in ("latest", "best")]
    lines = [
        [line["step"], line["split"], line["name"], None if _is_timed(line) else line["value"]]
        for line in read_ndjson(layout.metrics)
    ]
    audit = current_audit(read_ndjson(layout.events))
    return {
        **{name: hashlib.sha256((final / name).read_bytes()).hexdigest() for name in FINAL_FILES},
        "metrics": hashlib.sha256(json.dumps(lines).encode()).hexdigest(),
        "metric_lines": len(lines),
        "findings": [[event["record_id"], event["rule_id"], event["offset"]] for event in audit],
        "checkpoints": [step for step, _ in checkpoints],
        "pointers": [pointer.name if pointer is not None else None for pointer in pointers],
        "status": record.status,
        # Where a log is rotated depends on where it was cut back.
        "files": sorted(path.name for path in layout.directory.iterdir() if not _is_log(path)),
        "leftovers": leftovers,
    }


def _is_log(path: Path) -> bool:
    return ".ndjson" in path.name or path.name.startswith("debug.log")


def _is_timed(line: Mapping[str, Any]) -> bool:
    return line["split"] == "system" or line["name"] in TIMED


def _run_child(config: TrainConfig, directory: Path, resumes: bool, kill: Mapping[str, Any]) -> str:
    """Fork, train, and return how it ended: ``exit N``, ``killed`` or ``timed out``."""
    child = os.fork()
    if child == 0:
        _train_and_leave(config, directory, resumes, kill)
    limit_seconds = kill.get("seconds", CHILD_LIMIT_SECONDS)
    deadline = time.monotonic() + limit_seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return "killed" if code == -signal.SIGKILL else f"exit {code}"
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "killed" if "seconds" in kill else "timed out"
        time.sleep(_POLL_SECONDS)


def _train_and_leave(config: TrainConfig, directory: Path, resumes: bool, kill: Mapping[str, Any]) -> None:
    """Be the process that is killed; never returns."""
    said = os.open(directory / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    run = config.run.model_copy(update={"output_dir": directory / "runs", "resume_from": "latest" if resumes else None})
    storage = KillingStorage(kill)
    code = 70
    try:
        train(config.model_copy(update={"run": run}), TrainDependencies(storage=storage))
        (directory / "operations.json").write_text(json.dumps(storage.kinds), encoding="utf-8")
        code = 0
    except CodexError as error:
        sys.stderr.write(f"{error.block()}\n")
        code = error.exit_code
    except BaseException:  # noqa: BLE001 - a child of fork must never run on in its parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def answer_batch(config: TrainConfig, batch: int, scenarios: Sequence[Mapping[str, Any]]) -> None:
    """Run scenarios, as many side by side as there are workers, and write one line for each and one at the end."""
    workers = []
    for number in range(WORKERS):
        worker = os.fork()
        if worker == 0:
            code = 1
            try:
                for scenario in scenarios[number::WORKERS]:
                    line = json.dumps({**scenario, **run_scenario(config, scenario)}) + "\n"
                    os.write(1, line.encode())
                code = 0
            except BaseException:  # noqa: BLE001 - as above
                traceback.print_exc()
            finally:
                os._exit(code)
        workers.append(worker)
    for worker in workers:
        os.waitpid(worker, 0)
    os.write(1, json.dumps({"batch": batch}).encode() + b"\n")


def main(overrides: Sequence[str]) -> None:
    """Import, compile the patterns of the default policy, and serve."""
    torch.set_num_threads(1)
    SafetyFilters(load_policy("default"))
    composed = compose("train", "default", None, overrides, working_directory=Path.cwd(), environment={})
    config = validate_train(composed)
    # What is alive now stays, so the children need not copy every page that a collection would touch.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        answer_batch(config, asked["batch"], asked["scenarios"])


if __name__ == "__main__":
    main(sys.argv[1:])
