"""Builds an image without a network, and labels it with what it is made of: version, commit, base and wheels by digest.

``docker build -f Dockerfile.cpu -t codex:cpu .`` builds the same image; only the labels of digests then say "unknown".
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hashed_lock import LockError
from images.base_image import NAME
from images.wheelhouse import (
    REQUIREMENTS,
    WheelhouseError,
    check_locked,
    check_unchanged,
    is_for_cuda,
    read_image_lock,
    sha256,
)

KINDS = {"cpu": "wheelhouse", "cuda": "wheelhouse-cuda"}


class BuildError(Exception):
    """Why no image can be built; the message says what to do."""


def build_environment(docker: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a build: BuildKit where the client has it built in, else what the client chooses.

    From version 23 the client needs a plug-in for BuildKit, and refuses to build when it is asked for without one.
    """
    answer = subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)", answer)
    built_in = match is not None and 19 <= int(match[1]) < 23
    return {**environment, "DOCKER_BUILDKIT": "1"} if built_in else dict(environment)


def labels(root: Path, wheelhouse: Path, base_image: str, docker: str) -> dict[str, str]:
    """Return the build arguments that become labels.

    Raises
    ------
    BuildError
        If the wheelhouse or the base image is not there.
    """
    requirements = wheelhouse / REQUIREMENTS
    if not requirements.is_file():
        raise BuildError(f"{wheelhouse.name} is not there: run make {wheelhouse.name} first")
    inspect = [docker, "image", "inspect", "--format", "{{.Id}}", base_image]
    base = subprocess.run(inspect, capture_output=True, text=True, check=False)
    if base.returncode != 0:
        raise BuildError(
            f"the base image {base_image} is not there: run make base-image, or load another ({base.stderr.strip()})"
        )
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=root, capture_output=True, text=True, check=False
    )
    return {
        "VERSION": project["version"],
        "REVISION": commit.stdout.strip() or "unknown",
        "BASE_DIGEST": base.stdout.strip(),
        "WHEELHOUSE_DIGEST": f"sha256:{sha256(requirements)}",
    }


def check_wheelhouse(root: Path, wheelhouse: Path) -> None:
    """Compare each wheel with the list in the wheelhouse, and with the lock files of this checkout.

    Raises
    ------
    BuildError, LockError
        If a wheel differs from the expected one, or a lock file cannot be read.
    """
    if not (wheelhouse / REQUIREMENTS).is_file():
        raise BuildError(f"{wheelhouse.name} is not there: run make {wheelhouse.name} first")
    try:
        check_unchanged(wheelhouse)
        # The content of the wheelhouse decides: the build of the CUDA image can be tried with wheels for CPUs.
        check_locked(wheelhouse, read_image_lock(root, cuda=is_for_cuda(wheelhouse)))
    except WheelhouseError as error:
        raise BuildError(str(error)) from error


def build_command(docker: str, kind: str, tag: str, arguments: Mapping[str, str]) -> list[str]:
    """Return the call of Docker."""
    pairs = [text for name, value in arguments.items() for text in ("--build-arg", f"{name}={value}")]
    return [docker, "build", "--network=none", "--file", f"Dockerfile.{kind}", "--tag", tag, *pairs, "."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build an image and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Builds an image without a network, with labels of what it is made of."
    )
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--base-image", default=NAME, help=f"default: {NAME} (make base-image)")
    parser.add_argument("--wheelhouse", help="directory in the checkout (default: wheelhouse, wheelhouse-cuda)")
    parser.add_argument("--tag", help="default: codex:cpu, codex:cuda")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    wheelhouse = chosen.wheelhouse or KINDS[chosen.kind]
    docker = shutil.which("docker")
    try:
        if docker is None:
            raise BuildError("docker is not installed")
        check_wheelhouse(root, root / wheelhouse)
        from_entry = labels(root, root / wheelhouse, chosen.base_image, docker)
        from_entry |= {"BASE_IMAGE": chosen.base_image, "WHEELHOUSE": wheelhouse}
        command = build_command(docker, chosen.kind, chosen.tag or f"codex:{chosen.kind}", from_entry)
        return subprocess.run(command, cwd=root, env=build_environment(docker, os.environ), check=False).returncode
    except (BuildError, LockError, OSError, subprocess.CalledProcessError) as error:
        print(f"no image was built: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
