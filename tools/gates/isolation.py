"""How a command is put into an empty network namespace on this machine, or why it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = Path(__file__).resolve().with_name("loopback.py")
# For what would look for a network: it fails at once and does not wait. Telemetry is off besides.
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_RETRIES": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "SEMGREP_SEND_METRICS": "off",
    "SEMGREP_ENABLE_VERSION_CHECK": "0",
    "NO_PROXY": "127.0.0.1,localhost",
}


@dataclass(frozen=True)
class Isolation:
    """What stands before a command, and what to say of it; without a prefix there is no namespace."""

    prefix: tuple[str, ...]
    description: str


def find_isolation(tries: Callable[[Sequence[str]], bool] | None = None) -> Isolation:
    """Return the way into an empty network namespace that works here.

    Parameters
    ----------
    tries : callable, optional
        Runs a command and returns whether it succeeds.
    """
    tries = _succeeds if tries is None else tries
    options = ("-n",) if os.geteuid() == 0 else ("-rn",)
    prefix = ("unshare", *options, sys.executable, str(LOOPBACK))
    if tries([*prefix, "true"]):
        return Isolation(prefix, f"unshare {options[0]}: an empty network namespace for each scan, loopback up")
    return Isolation((), "NONE: this machine gives no network namespace (unshare); only offline switches are set")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
