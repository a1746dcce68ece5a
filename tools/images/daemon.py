"""A Docker daemon of one test, in a network namespace of its own that has no way out; others are left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Lets a command begin in the namespace with loopback up.
LOOPBACK = Path(__file__).resolve().parent.parent / "gates" / "loopback.py"
START_SECONDS = 120
STOP_SECONDS = 90


class DaemonError(Exception):
    """Why there is no daemon, with what it said."""


@dataclass(frozen=True)
class Daemon:
    """A daemon that answers.

    Attributes
    ----------
    directory : Path
        Holds everything of it; removed with it.
    pid : int
        Its process, whose network namespace is that of the daemon.
    """

    directory: Path
    pid: int

    @property
    def host(self) -> str:
        """What ``DOCKER_HOST`` must be."""
        return f"unix://{self.directory}/docker.sock"

    def inside(self, *command: str) -> list[str]:
        """Return the call of a command in the daemon's network namespace."""
        return ["nsenter", "--target", str(self.pid), "--net", *command]


@contextmanager
def private_daemon(docker: str) -> Iterator[Daemon]:
    """Start a daemon, and end it with everything it made, however the caller ends.

    Raises
    ------
    DaemonError
        If it does not start.
    """
    # Short, because sockets below it must have names of at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="codex-docker-"))
    log = directory / "dockerd.log"
    command = ["unshare", "-n", sys.executable, str(LOOPBACK), "dockerd"]
    command += ["--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")]
    command += ["--pidfile", str(directory / "docker.pid"), "--host", f"unix://{directory}/docker.sock"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    daemon = Daemon(directory, process.pid)
    try:
        _await_answer(docker, daemon, process, log)
        yield daemon
    finally:
        _end(process)
        _end_containerd(directory)
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)


def _await_answer(docker: str, daemon: Daemon, process: subprocess.Popen[bytes], log: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": daemon.host}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run([docker, "info"], capture_output=True, check=False, env=environment).returncode == 0:
            return
        time.sleep(0.5)
    raise DaemonError(f"dockerd does not start: {log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_containerd(directory: Path) -> None:
    """End the helper of a daemon that had to be killed; one that ended in order has taken it along."""
    try:
        pid = int((directory / "exec" / "containerd" / "containerd.pid").read_text())
        if str(directory) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return


def _unmount(directory: Path) -> None:
    """Take away what a daemon that had to be killed left mounted; the innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(directory)]):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
