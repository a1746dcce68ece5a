"""Brings loopback up in the network namespace of this process, and becomes the command behind it.

A fresh namespace (`unshare -n`) has its loopback down, and some scans speak to themselves over it. The kernel is asked
through a socket that is never connected; ``ip`` would do the same and is not on every machine.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_REQUEST = struct.Struct("16sH22x")


def bring_up(interface: str = "lo") -> None:
    """Set the flag of an interface that makes it work.

    Raises
    ------
    OSError
        If there is no such interface, or it is not ours to change.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, _REQUEST.pack(interface.encode(), 0))
        _, flags = _REQUEST.unpack(answer)
        fcntl.ioctl(asked, _SIOCSIFFLAGS, _REQUEST.pack(interface.encode(), flags | _IFF_UP))


def main(command: Sequence[str]) -> int:
    """Bring loopback up and run the command in place of this process."""
    if not command:
        print("loopback.py: expected a command")
        return 2
    try:
        bring_up()
        os.execvp(command[0], list(command))  # nosec B606 (a list of arguments, from the gate itself)
    except OSError as error:
        print(f"{command[0]} cannot be started without a network: {error}")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
