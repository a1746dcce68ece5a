"""Who may talk to the service: the bearer token, and the names a request may call a loopback service by."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from codex_ml.errors import UserError
from codex_ml.untrusted import UntrustedFileError, read_bytes

LEAST_TOKEN_CHARACTERS = 16
# Read when no other place is named; a container is given its token so.
TOKEN_VARIABLE = "CODEX_ML_API_TOKEN"
_LOOPBACK_NAME = "localhost"
_MAX_TOKEN_BYTES = 4096


class BearerToken:
    """A secret that requests must show; it appears in no text made of this object.

    Parameters
    ----------
    secret : str
        At least 16 printable ASCII characters without spaces.
    source : str
        Where it came from, for errors.
    """

    def __init__(self, secret: str, *, source: str) -> None:
        printable = secret.isascii() and secret.isprintable() and " " not in secret
        if len(secret) < LEAST_TOKEN_CHARACTERS or not printable:
            raise UserError(
                f"{source}: the bearer token cannot be used",
                why=f"it must have at least {LEAST_TOKEN_CHARACTERS} printable ASCII characters and no spaces",
                fix="write a long random text there",
            )
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def admits(self, authorization: str | None) -> bool:
        """Tell whether an Authorization header shows the token; takes the same time wherever the two differ."""
        scheme, _, shown = (authorization or "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self._secret)
        return same and scheme.lower() == "bearer"


def read_token(path: Path | None, variable: str | None, environment: Mapping[str, str]) -> BearerToken | None:
    """Return the token from a file, else from an environment variable.

    Where neither is named it is that of ``CODEX_ML_API_TOKEN``, and None where that is not set or empty.

    Raises
    ------
    UserError
        What was named is absent, cannot be read, or holds no usable token.
    """
    if path is not None:
        try:
            secret = read_bytes(path, _MAX_TOKEN_BYTES).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError, UntrustedFileError) as error:
            # The bytes of the file are part of a UnicodeDecodeError: only its kind is told, and no cause is kept.
            raise UserError(
                f"{path}: the bearer token cannot be read",
                why=str(error) if isinstance(error, UntrustedFileError) else type(error).__name__,
                fix="name a regular text file of at most 4096 bytes that holds the token; in place of a pipe, as from "
                "<(...), name an environment variable with --token-variable",
            ) from None
        return BearerToken(secret, source=str(path))
    if variable is None:
        if not environment.get(TOKEN_VARIABLE, "").strip():
            return None
        variable = TOKEN_VARIABLE
    if variable not in environment:
        raise UserError(f"{variable}: the environment variable with the bearer token is not set", fix="set it")
    return BearerToken(environment[variable].strip(), source=variable)


def is_loopback(host: str) -> bool:
    """Tell whether a host to bind to is reached from this machine only."""
    if host == _LOOPBACK_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_binding(host: str, token: BearerToken | None) -> None:
    """Refuse to listen beyond loopback without a token."""
    if token is None and not is_loopback(host):
        raise UserError(
            f"serve.host: {host} is reached from other machines, and no bearer token is set",
            why="everyone who reaches the port could use the models",
            fix="bind 127.0.0.1, or name a file or an environment variable with a token",
        )


def names_loopback(host_header: str | None) -> bool:
    """Tell whether a Host header names this machine: a page elsewhere that rebinds its name to loopback does not."""
    header = (host_header or "").strip().lower()
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    else:
        name, _, port = header.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    return is_loopback(name)
