"""The network guard and the offline switches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.errors import NetworkBlockedError
from codex_ml.offline import (
    OFFLINE_SWITCHES,
    PRIVACY_SWITCHES,
    PRIVATE_UMASK,
    NetworkGuard,
    allow_hub,
    go_offline,
    is_local_address,
    private_session,
)

Hook = Callable[[str, tuple[Any, ...]], None]
PROVE = """
import errno, socket, sys
from codex_ml.errors import NetworkBlockedError
from codex_ml.offline import GUARD
GUARD.activate()
for contact in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.getaddrinfo("example.org", 443),
    lambda: socket.gethostbyname("example.org"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    lambda: __import__("urllib.request").request.urlopen("http://192.0.2.1/"),
):
    try:
        contact()
    except NetworkBlockedError as error:
        print(error.what)
    else:
        sys.exit("a contact was not blocked")
server = socket.create_server(("127.0.0.1", 0))
try:
    socket.create_connection(server.getsockname(), timeout=5).close()
except OSError as error:
    # In an empty network namespace loopback itself is down: then the kernel refuses, and still not the guard.
    if error.errno != errno.ENETUNREACH:
        raise
GUARD.deactivate()
socket.getaddrinfo("192.0.2.1", 80, flags=socket.AI_NUMERICHOST)
"""


@pytest.fixture
def guard() -> NetworkGuard:
    """Return an active guard whose hook is installed nowhere."""
    fresh = NetworkGuard()
    fresh.activate(add_hook=lambda _: None)
    return fresh


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.getaddrinfo", ("huggingface.co", 443, 0, 0, 0)),
        ("socket.getaddrinfo", (b"huggingface.co", 443, 0, 0, 0)),
        ("socket.getaddrinfo", ("localhost.example.org", 443, 0, 0, 0)),
        ("socket.getaddrinfo", ("127.0.0.1.example.org", 443, 0, 0, 0)),
        ("socket.getaddrinfo", ("10.0.0.1", 443, 0, 0, 0)),
        ("socket.gethostbyname", ("huggingface.co",)),
        ("socket.gethostbyaddr", ("192.0.2.1",)),
        ("socket.getnameinfo", (("192.0.2.1", 80),)),
        ("socket.connect", (None, ("192.0.2.1", 80))),
        ("socket.connect", (None, ("2001:db8::1", 80, 0, 0))),
        ("socket.connect", (None, ("169.254.169.254", 80))),
        ("socket.connect", (None, ("fe80::1%eth0", 80, 0, 2))),
        ("socket.sendto", (None, ("192.0.2.1", 53))),
        ("socket.sendmsg", (None, ("192.0.2.1", 53))),
    ],
)
def test_check_other_machine_is_refused(guard: NetworkGuard, event: str, arguments: tuple[Any, ...]) -> None:
    """Every way to another machine is refused, and the caller is named."""
    with pytest.raises(NetworkBlockedError, match=r"blocked a connection to .* from .*test_offline:\d+"):
        guard.check(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
        ("socket.getaddrinfo", ("LOCALHOST", 80, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 80, 0, 0, 0)),
        ("socket.getaddrinfo", ("", 80, 0, 0, 0)),
        ("socket.getaddrinfo", ("::1", 80, 0, 0, 0)),
        ("socket.connect", (None, ("127.0.0.1", 80))),
        ("socket.connect", (None, ("127.8.8.8", 80))),
        ("socket.connect", (None, ("::1", 80, 0, 0))),
        ("socket.connect", (None, "/run/some.socket")),
        ("socket.connect", (None, "\0abstract")),
        ("socket.sendmsg", (None, None)),
        ("open", ("/etc/hosts", "r", 0)),
    ],
)
def test_check_this_machine_is_permitted(guard: NetworkGuard, event: str, arguments: tuple[Any, ...]) -> None:
    """Loopback, Unix sockets and all that is no network stay allowed."""
    guard.check(event, arguments)


@pytest.mark.parametrize("endpoint", ["relative.socket", b"relative.socket"])
def test_check_unix_socket_by_relative_path_is_permitted(guard: NetworkGuard, endpoint: str | bytes) -> None:
    """The family of the socket decides, however the path is spelt."""
    with socket.socket(socket.AF_UNIX) as endpoint_socket:
        guard.check("socket.connect", (endpoint_socket, endpoint))


def test_check_kernel_socket_is_permitted(guard: NetworkGuard) -> None:
    """A netlink socket talks to the kernel only."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as endpoint_socket:
        guard.check("socket.connect", (endpoint_socket, (0, 0)))


def test_check_deactivated_permits_everything(guard: NetworkGuard) -> None:
    """`offline: false` opens the guard, and activating closes it again."""
    guard.deactivate()
    guard.check("socket.connect", (None, ("192.0.2.1", 80)))
    guard.activate(add_hook=lambda _: pytest.fail("installed twice"))
    with pytest.raises(NetworkBlockedError):
        guard.check("socket.connect", (None, ("192.0.2.1", 80)))


def test_activate_twice_installs_one_hook() -> None:
    """An audit hook cannot be removed, so it is installed once."""
    hooks: list[Hook] = []
    fresh = NetworkGuard()
    fresh.activate(add_hook=hooks.append)
    fresh.deactivate()
    fresh.activate(add_hook=hooks.append)
    assert hooks == [fresh.check]


def test_is_local_address_unspecified_address_is_not_local() -> None:
    """0.0.0.0 is no loopback address, whatever some systems make of it."""
    assert not is_local_address("0.0.0.0")


def test_activate_in_real_process_blocks_real_sockets() -> None:
    """The installed hook stops connect, look-ups, datagrams and urllib before a packet leaves; loopback works."""
    result = subprocess.run([sys.executable, "-c", PROVE], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert "192.0.2.1" in lines[0]
    assert "__main__" in lines[0]


def test_go_offline_fresh_process_sets_every_switch_over_what_was_set() -> None:
    """A stray 0 in the environment must not switch a library online."""
    environment = {"HF_DATASETS_OFFLINE": "0", "EDITOR": "vi"}
    go_offline(environment, loaded_modules=dict)
    assert environment == {**OFFLINE_SWITCHES, **PRIVACY_SWITCHES, "EDITOR": "vi"}


def test_go_offline_loaded_libraries_get_the_switches() -> None:
    """A library that was imported first is switched through the constants it copied."""
    hub = SimpleNamespace(HF_HUB_OFFLINE=False, HF_HUB_DISABLE_TELEMETRY=False)
    data = SimpleNamespace(HF_HUB_OFFLINE=False, HF_DATASETS_OFFLINE=False)
    loaded = {"huggingface_hub.constants": hub, "datasets.config": data}
    environment: dict[str, str] = {}
    go_offline(environment, lambda: loaded)
    assert vars(hub) == {"HF_HUB_OFFLINE": True, "HF_HUB_DISABLE_TELEMETRY": True}
    assert vars(data) == {"HF_HUB_OFFLINE": True, "HF_DATASETS_OFFLINE": True}
    allow_hub(environment, lambda: loaded)
    assert vars(hub) == {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_TELEMETRY": True}
    assert vars(data) == {"HF_HUB_OFFLINE": False, "HF_DATASETS_OFFLINE": False}
    assert environment == {**PRIVACY_SWITCHES, **dict.fromkeys(OFFLINE_SWITCHES, "0")}


def test_private_session_restores_guard_switches_and_umask_after_an_exception() -> None:
    """The block has all three; afterwards the previous values are back."""
    guard = NetworkGuard()
    before = {name: os.environ.get(name) for name in (*OFFLINE_SWITCHES, *PRIVACY_SWITCHES)}
    umask = os.umask(0o022)
    try:
        with pytest.raises(KeyError), private_session(guard):  # noqa: PT012 - the state in the block is the subject
            assert guard.active
            assert os.environ["HF_HUB_OFFLINE"] == "1"
            allow_hub()
            current = os.umask(PRIVATE_UMASK)
            assert current == PRIVATE_UMASK
            raise KeyError
        assert not guard.active
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    assert {name: os.environ.get(name) for name in before} == before


def test_go_offline_again_after_imports_is_accepted() -> None:
    """Libraries that were imported under the switches are trusted."""
    environment: dict[str, str] = {}
    go_offline(environment, loaded_modules=dict)
    go_offline(environment, loaded_modules=lambda: {"transformers": None})
    assert environment["HF_HUB_OFFLINE"] == "1"
