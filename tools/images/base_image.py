"""Makes the base image without a registry: a small Debian 12 with Python, by mmdebstrap, as an archive for Docker.

Needs root, mmdebstrap and a Debian mirror; the mirror is the one that this machine's apt uses. The archive can be made
on one machine and brought to another on a medium (``docker import base.tar codex-base:bookworm``).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

SUITE = "bookworm"
NAME = f"codex-base:{SUITE}"
# ca-certificates: for whoever puts a proxy with TLS beside the service; codex-ml itself connects to nothing.
PACKAGES = "python3,python3-venv,ca-certificates"
# What apt left, where it came from, and what is read by nobody in a container.
REMOVED = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/var/lib/apt/lists",
    "/var/cache/apt",
    "/var/cache/debconf",
    "/var/log",
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/share/info",
)
DEBIAN = "http://deb.debian.org/debian"


def find_mirror(texts: Iterable[str]) -> str:
    """Return the address of the Debian mirror in the texts of apt's source files; Debian's own where there is none."""
    for text in texts:
        for line in text.splitlines():
            one_line = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+/debian/?)\s", line)
            deb822 = re.match(r"URIs:\s*(\S+/debian/?)(\s|$)", line)
            if found := one_line or deb822:
                return found[1].rstrip("/")
    return DEBIAN


def source_texts(directory: Path = Path("/etc/apt")) -> list[str]:
    """Return the texts of apt's source files."""
    files = [directory / "sources.list", *sorted(directory.glob("sources.list.d/*"))]
    return [file.read_text(errors="replace") for file in files if file.is_file()]


def bootstrap_command(archive: Path, mirror: str) -> list[str]:
    """Return the call of mmdebstrap."""
    remove = "rm -rf " + " ".join(f'"$1"{path}' for path in REMOVED)
    # dpkg and Python's own modules expect the two.
    again = 'mkdir -p "$1"/var/log "$1"/var/lib/apt/lists/partial "$1"/var/cache/apt/archives/partial'
    hooks = [f"--customize-hook={text}" for text in (remove, again)]
    return ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *hooks, SUITE, str(archive), mirror]


def make_archive(archive: Path) -> None:
    """Write the archive, whole or not at all.

    Raises
    ------
    OSError, subprocess.CalledProcessError
        If mmdebstrap is missing or fails.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{os.getpid()}.partial.tar")
    try:
        subprocess.run(bootstrap_command(partial, find_mirror(source_texts())), check=True, stdin=subprocess.DEVNULL)
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the archive where it is not there, import it, and return the exit code."""
    parser = argparse.ArgumentParser(description=f"Makes the base image {NAME} without a registry.")
    parser.add_argument("--archive", type=Path, default=Path(".cache/images/base.tar"), help="where the archive lies")
    parser.add_argument("--again", action="store_true", help="make it anew, with the mirror's newest packages")
    parser.add_argument("--only-archive", action="store_true", help="do not import it into Docker")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.again or not chosen.archive.is_file():
            make_archive(chosen.archive)
        if not chosen.only_archive:
            subprocess.run(["docker", "import", str(chosen.archive), NAME], check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no base image was made: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.archive}: {chosen.archive.stat().st_size / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
