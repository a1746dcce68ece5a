"""Tells whether a container, or this machine, can do its work: the health check of the images.

Without options: the command line answers, the run directory can be written. With ``--switches`` also: the offline
switches are set for every program, as the images do; codex-ml itself sets them wherever it runs. With ``--url`` also: a
service on this machine answers there with 200. Neither torch nor any package outside the standard library is imported,
so it costs a fraction of a second; no shell is needed. Exit codes are Docker's: 0 healthy, 1 unhealthy.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# What the images set, so that a library which is imported by something else than codex-ml finds them too.
SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class UnhealthyError(Exception):
    """What is wrong, in one line."""


def check_command_line(program: Path, timeout_seconds: float) -> str:
    """Return what ``codex-ml --version`` says.

    Raises
    ------
    UnhealthyError
        If it cannot be started, takes too long, or fails.
    """
    try:
        answer = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    except OSError as error:
        raise UnhealthyError(f"{program} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UnhealthyError(f"{program} --version takes longer than {timeout_seconds:g} s") from error
    if answer.returncode != 0 or not answer.stdout.startswith("codex-ml "):
        raise UnhealthyError(f"{program} --version exits with {answer.returncode}")
    return answer.stdout.strip()


def check_switches(environment: Mapping[str, str]) -> str:
    """Return how many offline switches are on.

    Raises
    ------
    UnhealthyError
        If one is not.
    """
    off = [f"{name} is not {value}" for name, value in SWITCHES.items() if environment.get(name) != value]
    if off:
        raise UnhealthyError(f"offline switches are off: {', '.join(off)}")
    return f"{len(SWITCHES)} offline switches are on"


def check_writable(directory: Path) -> str:
    """Return that a file can be written in a directory; it is removed again.

    Raises
    ------
    UnhealthyError
        If it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"healthy")
    except OSError as error:
        raise UnhealthyError(f"{directory} cannot be written: {error.strerror}") from error
    return f"{directory} can be written"


def check_service(url: str, timeout_seconds: float) -> str:
    """Return that a service on this machine answers with 200.

    Raises
    ------
    UnhealthyError
        If it does not, or the address is not one of this machine.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not _is_loopback(parts.hostname or ""):
        raise UnhealthyError(f"{url}: only http:// addresses of this machine are asked (127.0.0.1, ::1, localhost)")
    # No proxy of the environment: the service is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as answer:
            return f"{url} answers with {answer.status}"
    except urllib.error.HTTPError as error:
        raise UnhealthyError(f"{url} answers with {error.code}") from error
    except (OSError, ValueError) as error:
        raise UnhealthyError(f"{url} does not answer: {getattr(error, 'reason', error)}") from error


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Check, say what was found, and return the exit code."""
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(description="Tells whether codex-ml can work here. 0: healthy, 1: not.")
    parser.add_argument(
        "--program", type=Path, default=Path(sys.executable).with_name("codex-ml"), help="the codex-ml to ask"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path(environment.get("CODEX_RUN_DIRECTORY", "runs")),
        help="directory that must be writable (default: CODEX_RUN_DIRECTORY, then runs)",
    )
    parser.add_argument("--switches", action="store_true", help="the offline switches of the images must be set too")
    parser.add_argument("--url", help="a service on this machine that must answer with 200")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="for each question (default: 10)"
    )
    chosen = parser.parse_args(arguments)
    checks: list[Callable[[], str]] = [
        lambda: check_command_line(chosen.program, chosen.timeout),
        lambda: check_writable(chosen.runs),
    ]
    if chosen.switches:
        checks.append(lambda: check_switches(environment))
    if chosen.url is not None:
        checks.append(lambda: check_service(chosen.url, chosen.timeout))
    healthy = True
    for check in checks:
        try:
            print(f"healthy: {check()}")
        except UnhealthyError as error:
            healthy = False
            print(f"UNHEALTHY: {error}")
    return 0 if healthy else 1


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
