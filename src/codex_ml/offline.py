"""The network guard: offline switches of every library, set before their import, and an audit hook on sockets."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from codex_ml.errors import NetworkBlockedError

# Most switches are read once, at import of the library; the second column of docs/dependencies.md names the library.
OFFLINE_SWITCHES: dict[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
PRIVACY_SWITCHES: dict[str, str] = {
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_XET": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "127.0.0.1,localhost",
}
PRIVATE_UMASK = 0o077
# Constants into which libraries copy the environment variable of the same name when they are imported.
_SWITCH_CONSTANTS: dict[str, tuple[str, ...]] = {
    "huggingface_hub.constants": (
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_UPDATE_CHECK",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        "HF_HUB_DISABLE_XET",
    ),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
}
_TRUE_TEXTS = frozenset({"1", "ON", "YES", "TRUE"})
_CONTACT_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
# Each of these may ask a name server; getaddrinfo is not the only door.
_LOOKUP_EVENTS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"})
# Families that end inside this machine: files, and the kernel itself.
_LOCAL_FAMILIES = frozenset(
    getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG") if hasattr(socket, name)
)
_LOCAL_NAMES = frozenset({"", "localhost", "ip6-localhost"})


def go_offline(
    environment: MutableMapping[str, str] | None = None,
    loaded_modules: Callable[[], MutableMapping[str, Any]] = lambda: sys.modules,
) -> None:
    """Set every offline and no-telemetry switch, also in the hub libraries that are already imported."""
    environment = os.environ if environment is None else environment
    environment.update({**OFFLINE_SWITCHES, **PRIVACY_SWITCHES})
    for module, name in _loaded_switches(loaded_modules()):
        setattr(module, name, True)


def allow_hub(
    environment: MutableMapping[str, str] | None = None,
    loaded_modules: Callable[[], MutableMapping[str, Any]] = lambda: sys.modules,
) -> None:
    """Turn the offline switches off (``offline: false``); the no-telemetry switches stay on."""
    environment = os.environ if environment is None else environment
    environment.update(dict.fromkeys(OFFLINE_SWITCHES, "0"))
    for module, name in _loaded_switches(loaded_modules()):
        if name in OFFLINE_SWITCHES:
            setattr(module, name, False)


@contextmanager
def private_session(guard: NetworkGuard | None = None) -> Iterator[None]:
    """Apply the network guard, the switches and umask 077 in a ``with`` block, and restore the previous state.

    All three belong to the process, so other threads are affected while the block runs.
    """
    guard = guard or GUARD
    names = (*OFFLINE_SWITCHES, *PRIVACY_SWITCHES)
    variables = {name: os.environ.get(name) for name in names}
    constants = {(module.__name__, name): getattr(module, name) for module, name in _loaded_switches(sys.modules)}
    was_active = guard.active
    umask = os.umask(PRIVATE_UMASK)
    try:
        go_offline()
        guard.activate()
        yield
    finally:
        guard.active = was_active
        os.umask(umask)
        for variable, value in variables.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
        for module, name in _loaded_switches(sys.modules):
            # A library that was first imported in the block gets the value it would have read outside.
            is_set = (variables[name] or "").upper() in _TRUE_TEXTS
            setattr(module, name, constants.get((module.__name__, name), is_set))


def _loaded_switches(modules: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Return module and name of every switch that a loaded library copied into a constant."""
    found = ((modules.get(module), name) for module, names in _SWITCH_CONSTANTS.items() for name in names)
    return [(module, name) for module, name in found if hasattr(module, name)]


class NetworkGuard:
    """Refuses every non-loopback address while active, naming the caller.

    Python cannot remove an audit hook, so one hook is installed for the life of the process and ``active`` switches it.
    """

    def __init__(self) -> None:
        self.active = False
        self._installed = False

    def activate(self, add_hook: Callable[[Callable[[str, tuple[Any, ...]], None]], None] = sys.addaudithook) -> None:
        """Start refusing; the hook itself is installed at the first call only."""
        if not self._installed:
            add_hook(self.check)
            self._installed = True
        self.active = True

    def deactivate(self) -> None:
        """Allow the network again (``offline: false``)."""
        self.active = False

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Audit hook: raise `NetworkBlockedError` for an address that is not on this machine."""
        if not self.active or event not in _CONTACT_EVENTS | _LOOKUP_EVENTS:
            return
        address = _address_of(event, arguments)
        if address is None or is_local_address(address):
            return
        raise NetworkBlockedError(
            f"blocked a connection to {address!r} ({event}) from {_caller()}",
            why="codex-ml runs offline: nothing may leave this machine",
            fix="use local files; only if this contact is wanted, set offline=false",
            code="NETWORK_BLOCKED",
        )


GUARD = NetworkGuard()


def is_local_address(address: str) -> bool:
    """Tell whether a host name, IP address or Unix socket path stays on this machine."""
    if address.lower() in _LOCAL_NAMES or address.startswith(("/", "\0")):
        return True
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _address_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the host an event is about; None when it stays on this machine or was checked at an earlier connect."""
    if event in _LOOKUP_EVENTS:
        return _host_text(arguments[0])
    endpoint_socket, endpoint = arguments[0], arguments[1]
    # By attribute: libraries also use the plain _socket.socket, of which socket.socket is only a subclass.
    if getattr(endpoint_socket, "family", None) in _LOCAL_FAMILIES:
        return None
    return _host_text(endpoint)


def _host_text(host: Any) -> str | None:
    """Return a host, or the first part of an ``(host, port, …)`` endpoint, as text; None for none."""
    if isinstance(host, tuple):
        host = host[0] if host else None
    if host is None:
        return None
    return host.decode("utf-8", "replace") if isinstance(host, bytes) else str(host)


def _caller() -> str:
    """Return ``module:line`` of the nearest frame outside this module and the socket library."""
    frame = sys._getframe(1)  # noqa: SLF001 - the only way to name the caller without building a whole traceback
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name not in {__name__, "socket"}:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None at the outermost frame ends the loop
    return "an unknown caller"
