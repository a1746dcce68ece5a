"""Training in this process with collaborators of the test's choice, and real disks of a few megabytes to fill."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STEPS = 4
# The mount lives as long as the process that made it, which ends when the test closes its standard input.
_HOLDER = 'mount -t tmpfs -o "size=$2,mode=0700" none "$1" && echo mounted && read -r _'
_FILLER = "filler"


@dataclass(frozen=True)
class TrainedRun:
    """What a run left behind and what it said."""

    directory: Path
    said: list[str]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [event for event in self.lines("events.ndjson") if event["kind"] == kind]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the records of an NDJSON file."""
        return [json.loads(line) for line in (self.directory / name).read_text("utf-8").split("\n") if line]

    def record(self) -> dict[str, Any]:
        """Return run.json."""
        return json.loads((self.directory / "run.json").read_text("utf-8"))

    def weights(self, steps: int = STEPS) -> bytes:
        """Return the bytes of the adapter after a step, by default the last."""
        return (self.directory / f"checkpoints/step-{steps:08d}/adapter_model.safetensors").read_bytes()

    def checkpoints(self) -> list[str]:
        """Return the names of everything that lies where checkpoints do."""
        return sorted(entry.name for entry in (self.directory / "checkpoints").iterdir())


@dataclass(frozen=True)
class TrainHere:
    """Trains a tiny adapter for a few steps in this process."""

    model: Path
    data: Path
    working_directory: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, *overrides: str, **dependencies: Any) -> TrainedRun:
        """Train, with the collaborators of `TrainDependencies` that are given, and return what came of it."""
        from codex_ml.config.compose import compose
        from codex_ml.config.validate import validate_train
        from codex_ml.recipes.train.job import TrainDependencies, train

        said: list[str] = []
        values = [
            f"model.path={self.model}",
            f"data.path={self.data}",
            f"training.max_steps={STEPS}",
            "training.logging_steps=2",
            "training.learning_rate=1e-2",
            *overrides,
        ]
        composed = compose("train", "default", None, values, working_directory=self.working_directory, environment={})
        outcome = train(validate_train(composed), TrainDependencies(**{"emit": said.append, **dependencies}))
        assert outcome.directory is not None
        return TrainedRun(outcome.directory, [*said, *outcome.lines])

    def only_run(self) -> TrainedRun:
        """Return the one run that lies in the directory: of a training that did not come back."""
        (directory,) = (self.working_directory / "runs").glob("*-run")
        return TrainedRun(directory, [])


@pytest.fixture(scope="session")
def trainer_in(tiny_llama_directory: Path, small_records: Path) -> Callable[[Path], TrainHere]:
    """Return what makes a `TrainHere` for a working directory."""
    return lambda directory: TrainHere(tiny_llama_directory, small_records, directory)


@pytest.fixture
def train_here(trainer_in: Callable[[Path], TrainHere], tmp_path: Path) -> TrainHere:
    """Return what trains in the directory of the test."""
    return trainer_in(tmp_path)


class NoSmallDiskError(Exception):
    """The machine lets nobody mount a tmpfs: neither root nor a user namespace."""


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs.

    Attributes
    ----------
    inside : Path
        Where processes see it that are started with `prefix`.
    dependencies : Path
        Where the test itself sees it.
    prefix : tuple of str
        What stands before a command that is to see it.
    """

    inside: Path
    dependencies: Path
    prefix: tuple[str, ...]

    def fill(self) -> None:
        """Write until not one byte more fits, into files as well as into names."""
        descriptor = os.open(self.dependencies / _FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (1 << 16, 4096, 1):
                with suppress(OSError):
                    while True:
                        os.write(descriptor, bytes(size))
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give the space back that `fill` took."""
        (self.dependencies / _FILLER).unlink()

    def set_read_only(self, read_only: bool = True) -> None:
        """Mount it again, for reading only or for both."""
        options = "remount,ro" if read_only else "remount,rw"
        subprocess.run([*self.prefix, "mount", "-o", options, str(self.inside)], check=True, capture_output=True)


@contextmanager
def mounted(directory: Path, size: str = "6m") -> Iterator[SmallDisk]:
    """Mount a small disk on a directory for the length of a ``with`` block, as root or in a user namespace.

    Raises
    ------
    NoSmallDiskError
        Where neither works; the text says why.
    """
    directory.mkdir()
    is_root = os.geteuid() == 0
    command = ["unshare", "-m" if is_root else "-rm", "sh", "-c", _HOLDER, "sh", str(directory), size]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "mounted":
            _, reason = holder.communicate(timeout=120)
            raise NoSmallDiskError(reason.strip())
        user = () if is_root else ("--preserve-credentials", "-U")
        prefix = ("nsenter", "-t", str(holder.pid), *user, "-m")
        yield SmallDisk(directory, Path(f"/proc/{holder.pid}/root{directory}"), prefix)
    finally:
        # Its end of the pipe closes, `read` returns, and with the last process the mount is gone.
        holder.communicate(timeout=120)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a real disk of a few megabytes; skipped with the reason where nobody may mount one."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(mounted(tmp_path / "disk"))
        except NoSmallDiskError as error:
            pytest.skip(f"this machine allows no tmpfs of one's own: {error}")
        yield disk
