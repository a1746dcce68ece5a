"""Scans run in an empty network namespace where the machine allows one, and the gate says so where not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gates.isolation import find_isolation

SPEAKS_TO_ITSELF = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    sys.exit(0 if error.errno == 101 else 3)
sys.exit(4)
"""


def test_find_isolation_of_this_machine_has_loopback_and_nothing_else() -> None:
    """Loopback answers; an address elsewhere is unreachable at once."""
    isolation = find_isolation()
    if not isolation.prefix:
        pytest.skip(isolation.description)
    answer = subprocess.run([*isolation.prefix, sys.executable, "-c", SPEAKS_TO_ITSELF], check=False, timeout=180)
    assert answer.returncode == 0


def test_find_isolation_refused_by_the_machine_is_said() -> None:
    """No prefix, and a line that says NONE."""
    isolation = find_isolation(lambda _: False)
    assert isolation.prefix == ()
    assert "NONE" in isolation.description


def test_find_isolation_exit_code_of_the_command_is_kept() -> None:
    """The namespace hides no failure."""
    isolation = find_isolation()
    command = [*isolation.prefix, sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, check=False, timeout=180).returncode == 7
    missing = [*isolation.prefix, "no-such-program-of-codex"]
    if isolation.prefix:
        assert subprocess.run(missing, capture_output=True, check=False, timeout=180).returncode == 127
