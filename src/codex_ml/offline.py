"""The network guard: offline switches of every library, set before their import, and an audit hook on sockets."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from codex_ml.errors import NetworkBlockedError, UserError

# Each switch is read once, at import of its library; the second column of docs/dependencies.md names the library.
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
_HUB_LIBRARIES = ("huggingface_hub", "transformers", "datasets", "evaluate", "peft", "mlflow", "wandb")
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
    """Set every offline and no-telemetry switch before any hub library is imported, overriding what was set.

    Raises
    ------
    UserError
        If a hub library was imported already: it has read its switches and can no longer be trusted.
    """
    environment = os.environ if environment is None else environment
    early = [name for name in _HUB_LIBRARIES if name in loaded_modules()]
    switched = {**OFFLINE_SWITCHES, **PRIVACY_SWITCHES}
    if early and any(environment.get(key) != value for key, value in switched.items()):
        raise UserError(
            f"{', '.join(early)} was imported before codex-ml could switch it offline",
            why="these libraries read their offline switches once, when they are imported",
            fix="import codex_ml.offline and call go_offline() first, or start through the codex-ml command",
            code="NETWORK_SWITCHES_TOO_LATE",
        )
    environment.update(switched)


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
