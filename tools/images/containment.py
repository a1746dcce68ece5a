"""Shows that a container of ours reaches nothing outside, has no rights, and is called unhealthy when it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.daemon import LOOPBACK, Daemon
from images.shell import Shell, StepError, wait_for

# Addresses of the documentation range (RFC 5737): a host of the test in a namespace of its own, and its way back.
OUTSIDE, GATEWAY = "203.0.113.1", "203.0.113.2"
PORT = 8080
REACH = f"""
import socket, sys
try:
    socket.create_connection(("{OUTSIDE}", {PORT}), timeout=5).close()
except OSError as error:
    sys.exit(f"no way: {{error}}")
print("reached")
"""
RIGHTS = """
import json, os, pathlib
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
written = []
for place in ("/", "/etc", "/opt/codex", "/work", "/work/models", "/work/data"):
    try:
        (pathlib.Path(place) / "written").write_text("x")
        written.append(place)
    except OSError:
        pass
capabilities, locked = status["CapBnd"].strip(), status["NoNewPrivs"].strip()
print(json.dumps({"uid": os.getuid(), "capabilities": capabilities, "no_new_privileges": locked, "written": written}))
"""


def check_no_way_out(shell: Shell, daemon: Daemon, container: str) -> None:
    """Show that a host outside is reached from an ordinary container, and not from one of ours.

    Raises
    ------
    StepError
        If ours reaches it, or the ordinary one does not: then nothing was shown.
    """
    python = ["/opt/codex/bin/python", "-c", REACH]
    with _host_outside(shell, daemon):
        ordinary = ["docker", "run", "--rm", "--network=bridge", "--entrypoint", python[0], "codex:cpu", *python[1:]]
        shell.run(*ordinary)
        code, text = shell.try_run("docker", "exec", container, *python)
    if code == 0 or "no way" not in text:
        raise StepError(f"a container reaches the outside: {text}")


@contextmanager
def _host_outside(shell: Shell, daemon: Daemon) -> Iterator[None]:
    """Put another host behind the daemon's, as a network of a house would be, with a service that answers."""
    serve = [sys.executable, "-m", "http.server", str(PORT)]
    command = ["unshare", "-n", sys.executable, str(LOOPBACK), *serve]
    host = subprocess.Popen(command, cwd=daemon.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Before that its namespace may still be ours.
    namespace = Path(f"/proc/{host.pid}/ns/net")
    ours = Path("/proc/self/ns/net").readlink()
    try:
        wait_for("the host outside", lambda: True if namespace.readlink() != ours else None, 30)
        there = ["nsenter", "--target", str(host.pid), "--net", "ip"]
        here = daemon.inside("ip")
        shell.run(*here, "link", "add", "outside", "type", "veth", "peer", "name", "inside", "netns", str(host.pid))
        for side, address, device in ((here, GATEWAY, "outside"), (there, OUTSIDE, "inside")):
            shell.run(*side, "address", "add", f"{address}/30", "dev", device)
            shell.run(*side, "link", "set", device, "up")
        shell.run(*there, "route", "add", "default", "via", GATEWAY)
        reach = daemon.inside(sys.executable, "-c", REACH)
        wait_for("a service outside", lambda: True if shell.try_run(*reach)[0] == 0 else None, 30)
        yield
    finally:
        # The pair of interfaces ends with its namespace.
        host.kill()
        host.wait()


def check_confined(shell: Shell, container: str) -> None:
    """Show that a container has no capabilities, cannot gain any, and writes nowhere but in its runs.

    Raises
    ------
    StepError
        What it can do.
    """
    rights = json.loads(shell.run("docker", "exec", container, "/opt/codex/bin/python", "-c", RIGHTS))
    expected = {"uid": 10001, "capabilities": "0" * 16, "no_new_privileges": "1", "written": []}
    if rights != expected:
        raise StepError(f"a container can do more than it should: {rights}")
    limits = shell.run(
        "docker", "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", container
    ).split()
    if "0" in limits or "<nil>" in limits:
        raise StepError(f"a container has no limit of memory or processes: {limits}")


def check_health_can_fail(shell: Shell) -> None:
    """Show that Docker calls a container unhealthy whose run directory cannot be written.

    Raises
    ------
    StepError
        If it does not, within a minute.
    """
    # A start period of 0 would mean that of the image.
    options = [
        "--read-only",
        "--network=none",
        "--health-interval=1s",
        "--health-retries=1",
        "--health-start-period=1s",
    ]
    entry = ["--entrypoint", "/opt/codex/bin/python", "codex:cpu", "-c", "import time; time.sleep(300)"]
    container = shell.run("docker", "run", "--detach", *options, *entry).strip()
    inspect = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]

    def settled() -> str | None:
        state = shell.run(*inspect).strip()
        return None if state == "starting" else state

    try:
        if (state := wait_for("an unhealthy container", settled, 60)) != "unhealthy":
            raise StepError(f"a container that cannot write its runs is called {state}")
    finally:
        shell.run("docker", "rm", "--force", container)
