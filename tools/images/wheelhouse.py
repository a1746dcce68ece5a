"""Makes the wheelhouse of an image: codex-ml and everything it needs as wheels, named by digest.

This is the one step that needs a package index (or ``PIP_FIND_LINKS``); it can be done on another machine of the same
kind and brought on a medium. Every file, including the build backends, is compared with ``requirements-hashed.txt``
before its code runs. A wheelhouse is complete or does not exist. Third-party wheels are kept until a pin changes; the
wheel of codex-ml is made each time, with the same bytes for the same source (``SOURCE_DATE_EPOCH``, else the last
commit).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hashed_lock import BUILD, CORE, CUDA_LOCK, LOCK, Locked, LockError, canonical, chosen, lock_text, read_lock

OWN = "codex-ml"
REQUIREMENTS = "requirements.txt"
STAMP = "made-from.txt"
# The bytes must not depend on when they were packed; outside a repository this is the time that hatchling takes.
EPOCH_WITHOUT_GIT = "1580601600"
WHEEL_NAME = re.compile(r"^(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl$")
CUDA_PARTS = re.compile(r"^(nvidia[-_](?!ml[-_]py)|triton$|cuda[-_])", re.IGNORECASE)
NO_TORCH = (
    "pip finds no build of torch whose SHA-256 is in the lock: name an index with the build for CPUs in "
    "PIP_EXTRA_INDEX_URL or a directory in PIP_FIND_LINKS (for CUDA: PIP_INDEX_URL), or add the hash of another build "
    "(docs/dependencies.md)"
)


class WheelhouseError(Exception):
    """Why there is no wheelhouse; the message says what to do."""


def sha256(file: Path) -> str:
    """Return the digest of a file, in hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def requirements_of(wheels: Iterable[Path]) -> str:
    """Return a requirements file that names exactly these wheels, by digest.

    Raises
    ------
    WheelhouseError
        If there are none, a file is no wheel, or a package is there twice: pip could take either.
    """
    lines: dict[str, str] = {}
    for wheel in sorted(wheels):
        match = WHEEL_NAME.match(wheel.name)
        if match is None:
            raise WheelhouseError(f"{wheel.name} is not the name of a wheel")
        name = canonical(match["name"])
        if name in lines:
            raise WheelhouseError(f"{name} is in the wheelhouse twice: remove the directory and make it again")
        lines[name] = f"{name}=={match['version']} --hash=sha256:{sha256(wheel)}\n"
    if not lines:
        raise WheelhouseError("the wheelhouse is empty")
    return "".join(lines.values())


def check_kind(wheels: Iterable[Path], *, cuda: bool) -> None:
    """Refuse a build of torch that is not of the requested kind.

    Raises
    ------
    WheelhouseError
        If torch in a CPU wheelhouse needs CUDA libraries (gigabytes that no CPU uses), or torch in a CUDA one none.
    """
    parts = sorted(part for wheel in wheels if wheel.name.startswith("torch-") for part in cuda_requirements(wheel))
    if parts and not cuda:
        raise WheelhouseError(
            f"the package index gives torch for CUDA ({len(parts)} packages, {parts[0]} first), not for CPUs: name an "
            "index or a directory with the CPU build in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS"
        )
    if cuda and not parts:
        raise WheelhouseError(
            "the package index gives torch for CPUs, not for CUDA: name an index or a directory with the CUDA build in "
            "PIP_INDEX_URL or PIP_FIND_LINKS"
        )


def cuda_requirements(wheel: Path) -> list[str]:
    """Return the CUDA packages that a wheel requires by its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode("utf-8")
    required = re.findall(r"^Requires-Dist: *([A-Za-z0-9._-]+)", metadata, re.MULTILINE)
    return [one for one in required if CUDA_PARTS.match(one)]


def check_locked(directory: Path, locked: Mapping[str, Locked]) -> None:
    """Refuse a wheelhouse whose files are not those of the lock.

    This program makes the wheel of codex-ml and builds wheels from source distributions: they are not in the lock, and
    `check_unchanged` compares them with the list of the wheelhouse.

    Raises
    ------
    WheelhouseError
        If a wheel has another version or another hash than the lock, or is not in it.
    """
    for wheel in sorted(directory.glob("*.whl")):
        match = WHEEL_NAME.match(wheel.name)
        name = canonical(match["name"]) if match else wheel.name
        if match is None or name == OWN:
            continue
        expected = locked.get(name)
        if expected is None or match["version"].partition("+")[0] != expected.version:
            version = expected.version if expected else "no such package"
            raise WheelhouseError(f"{wheel.name}: not the version in the lock (expected {version}): remove {directory}")
        if not expected.is_source_only and sha256(wheel) not in expected.digests:
            raise WheelhouseError(
                f"{wheel.name}: its SHA-256 is not in the lock: it was replaced, or is another build (see "
                "docs/dependencies.md)"
            )


def is_for_cuda(directory: Path) -> bool:
    """Return whether the torch of a wheelhouse is its CUDA build."""
    return any(cuda_requirements(wheel) for wheel in directory.glob("torch-*.whl"))


def read_image_lock(root: Path, *, cuda: bool) -> dict[str, Locked]:
    """Return the locked packages of an image.

    Raises
    ------
    LockError
        If a lock file is missing or cannot be read.
    """
    return read_lock(root / (CUDA_LOCK if cuda else LOCK))


def check_unchanged(directory: Path) -> None:
    """Refuse to take over wheels that are no longer those that were fetched.

    Raises
    ------
    WheelhouseError
        If the digests of the wheels are not those that were written down.
    """
    noted = directory / REQUIREMENTS
    if not noted.is_file() or noted.read_text() != requirements_of(directory.glob("*.whl")):
        raise WheelhouseError(
            f"the wheels in {directory} are not those of its {REQUIREMENTS}: remove it and make it again"
        )


def source_date_epoch(root: Path, environment: Mapping[str, str]) -> str:
    """Return the time that is written into archives, in seconds since 1970."""
    if given := environment.get("SOURCE_DATE_EPOCH"):
        return given
    answer = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=root, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or EPOCH_WITHOUT_GIT


def made_from(root: Path, extras: str) -> str:
    """Return a text of everything the third-party wheels depend on: locks, requirements, extras, and this Python."""
    files = [sha256(root / name) for name in (LOCK, CUDA_LOCK, "pyproject.toml")]
    return "\n".join([*files, extras, ".".join(map(str, sys.version_info[:2])), ""])


class Wheelhouse:
    """One directory of wheels.

    Parameters
    ----------
    root : Path
        The checkout.
    directory : Path
        Where the wheels are to lie.
    extras : str
        Optional parts of codex-ml, separated by commas.
    cuda : bool
        Whether torch is to be its CUDA build.
    """

    def __init__(self, root: Path, directory: Path, extras: str, *, cuda: bool) -> None:
        self._root, self._directory, self._extras, self._cuda = root, directory, extras, cuda

    def make(self) -> None:
        """Make it, or only the wheel of codex-ml where no pin has changed.

        Raises
        ------
        WheelhouseError, LockError, subprocess.CalledProcessError
            If it cannot be; what was there before is left as it was.
        """
        locked = read_image_lock(self._root, cuda=self._cuda)
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wheelhouse.", dir=self._directory.parent) as temporary:
            wheels = Path(temporary) / "wheels"
            wheels.mkdir()
            pip = self._pip(Path(temporary), locked)
            own = self._own_wheel(pip, wheels)
            stamp = made_from(self._root, self._extras)
            if (self._directory / STAMP).is_file() and (self._directory / STAMP).read_text() == stamp:
                check_unchanged(self._directory)
                for wheel in self._directory.glob("*.whl"):
                    if wheel.name.split("-")[0] != own.name.split("-")[0]:
                        os.link(wheel, wheels / wheel.name)
            else:
                self._fetch(pip, wheels, locked)
            check_kind(wheels.glob("*.whl"), cuda=self._cuda)
            check_locked(wheels, locked)
            (wheels / REQUIREMENTS).write_text(requirements_of(wheels.glob("*.whl")))
            (wheels / STAMP).write_text(stamp)
            old = Path(temporary) / "old"
            if self._directory.exists():
                self._directory.rename(old)
            wheels.rename(self._directory)

    def _pip(self, temporary: Path, locked: Mapping[str, Locked]) -> list[str]:
        # A separate environment, so that only Python has to be installed; its build backends are checked by hash too.
        venv.create(temporary / "pip", with_pip=True)
        pip = [str(temporary / "pip" / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        if backends := chosen(locked, {BUILD}):
            requirements = write_requirements(temporary / "build.txt", backends)
            subprocess.run(
                [*pip, "install", "--no-deps", "--require-hashes", "--requirement", requirements], check=True
            )
        return pip

    def _own_wheel(self, pip: Sequence[str], wheels: Path) -> Path:
        environment = {**os.environ, "SOURCE_DATE_EPOCH": source_date_epoch(self._root, os.environ)}
        command = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(self._root)]
        subprocess.run(command, check=True, env=environment)
        (own,) = wheels.glob("*.whl")
        # umask must not decide who can read it in the image.
        own.chmod(0o644)
        return own

    def _fetch(self, pip: Sequence[str], wheels: Path, locked: Mapping[str, Locked]) -> None:
        wanted = chosen(locked, {CORE, *self._extras.split(",")})
        # Build isolation would install build backends without a comparison of hashes.
        command = [*pip, "wheel", "--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517"]
        command += ["--wheel-dir", str(wheels), "--requirement"]
        # torch first: if the index has the wrong build, nothing else is fetched.
        torch = {name: package for name, package in wanted.items() if name == "torch"}
        try:
            subprocess.run([*command, write_requirements(wheels.parent / "torch.txt", torch)], check=True)
        except subprocess.CalledProcessError as error:
            raise WheelhouseError(NO_TORCH) from error
        check_kind(wheels.glob("*.whl"), cuda=self._cuda)
        others = {name: package for name, package in wanted.items() if name not in torch}
        subprocess.run([*command, write_requirements(wheels.parent / "wanted.txt", others)], check=True)


def write_requirements(file: Path, packages: Mapping[str, Locked]) -> str:
    """Write a requirements file with hashes for pip, and return its path."""
    file.write_text(lock_text("", packages.values()), encoding="utf-8")
    return str(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a wheelhouse and return the exit code."""
    parser = argparse.ArgumentParser(description="Makes the wheelhouse of an image: every package as a wheel.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--directory", type=Path, default=Path("wheelhouse"), help="where (default: wheelhouse)")
    parser.add_argument("--cuda", action="store_true", help="torch for CUDA, and what reads a GPU's state")
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    if sys.version_info[:2] != (3, 11):
        print(f"note: wheels for Python {sys.version_info[0]}.{sys.version_info[1]}; the base image must have the same")
    extras = "tracking,serve,cuda" if chosen.cuda else "tracking,serve"
    directory = root / chosen.directory
    try:
        Wheelhouse(root, directory, extras, cuda=chosen.cuda).make()
    except (WheelhouseError, LockError, OSError, subprocess.CalledProcessError) as error:
        print(f"no wheelhouse was made: {error}", file=sys.stderr)
        return 2
    wheels = list(directory.glob("*.whl"))
    mebibytes = sum(wheel.stat().st_size for wheel in wheels) / 2**20
    print(f"{chosen.directory}: {len(wheels)} wheels, {mebibytes:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
