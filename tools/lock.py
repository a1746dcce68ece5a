"""Writes constraints.txt and the hashed lock files again, from one clean environment.

constraints.txt holds every version that ``pip install -e '.[dev]'`` installs today. requirements-hashed.txt holds the
same versions, with the SHA-256 of every file that the package index offers for Linux on x86_64 and aarch64; for torch,
of the build for CPUs that pip installed. requirements-hashed-cuda.txt has torch for CUDA and its dependencies instead.
The locks of the tools' environments keep their versions. uv asks the index for the hashes and downloads no package.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.markers import Marker

from hashed_lock import BUILD, CORE, CUDA, CUDA_LOCK, LOCK, TOOL_LOCKS, Locked, canonical, lock_text, read_lock
from installed_packages import closure, installed_packages
from tool_environments import UV

HEADER = "# Every version a make target installs; made from a clean environment by: make lock\n"
LOCK_HEADER = """\
# The versions of constraints.txt with the SHA-256 of every file that may be installed; made by: make lock
# pip install --require-hashes -r requirements-hashed.txt (docs/dependencies.md, also on other builds of torch)
"""
CUDA_HEADER = """\
# As requirements-hashed.txt, but with torch for CUDA and the packages that it needs; made by: make lock
# pip install --require-hashes -r requirements-hashed-cuda.txt (docs/dependencies.md)
"""
EXTRAS = ("tracking", "serve", "docs", "dev")
BUILD_BACKENDS = ("hatchling", "setuptools")
# Markers are evaluated for this platform; the packages for aarch64 are the same.
PLATFORM = {
    "python_version": "3.11",
    "python_full_version": "3.11.0",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
# Wheels for Linux on the two machine types.
_PLATFORM = re.compile(r"any|(?:many|musl)?linux\w*_(?:x86_64|aarch64)")


def constraints_of(frozen: str) -> str:
    """Return the text of a constraints file for what ``pip freeze --all`` printed.

    The checkout itself and pip are left out, and the local part of a version (``2.13.0+cpu``), which another machine's
    index does not have.
    """
    lines = []
    for line in frozen.splitlines():
        name, separator, version = line.partition("==")
        if separator and not line.startswith(("#", "-")) and name not in ("pip", "codex-ml"):
            lines.append(f"{name}=={version.partition('+')[0]}")
    return HEADER + "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def torch_requirement(project: str) -> str:
    """Return what the text of pyproject.toml asks of torch.

    A bare ``torch`` would be the newest there is, with its CUDA packages; taken back for the version that the project
    allows, it would leave them behind.
    """
    dependencies = tomllib.loads(project)["project"]["dependencies"]
    return next(text for text in dependencies if re.match(r"torch(?![\w-])", text))


def is_supported(file_name: str) -> bool:
    """Return whether a file fits a supported platform: Linux on x86_64 or aarch64, Python 3.11 or newer."""
    if not file_name.endswith(".whl"):
        return file_name.endswith((".tar.gz", ".zip"))
    _, python, abi, platform = file_name.removesuffix(".whl").rsplit("-", 3)
    if not any(_PLATFORM.fullmatch(tag) for tag in platform.split(".")):
        return False
    # abi3 wheels fit later versions too.
    return abi == "abi3" or not all(_is_old_python(tag) for tag in python.split("."))


def _is_old_python(tag: str) -> bool:
    match = re.fullmatch(r"(cp|pp|py)(\d)(\d*)", tag)
    if match is None:
        return False
    return int(match[2]) < 3 or (bool(match[3]) and match[1] != "py" and int(match[3]) < 11)


def packages_of_pylock(document: Mapping[str, Any]) -> dict[str, tuple[str, list[str], bool]]:
    """Return version, hashes, and whether there is no wheel, for each canonical name in a pylock (PEP 751).

    Packages that only other platforms need are left out.

    Raises
    ------
    ValueError
        If a package occurs in two versions.
    """
    found: dict[str, tuple[str, list[str], bool]] = {}
    for package in document["packages"]:
        if "marker" in package and not Marker(package["marker"]).evaluate(PLATFORM):
            continue
        wheels = {_file_name(wheel): wheel["hashes"]["sha256"] for wheel in package.get("wheels", ())}
        sources = [package["sdist"]["hashes"]["sha256"]] if "sdist" in package else []
        digests = [digest for name, digest in wheels.items() if is_supported(name)]
        name = canonical(package["name"])
        if name in found:
            raise ValueError(f"{name} is resolved to two versions: {found[name][0]} and {package['version']}")
        if digests or sources:
            found[name] = (package["version"], digests + sources, not digests)
    return found


def _file_name(wheel: Mapping[str, Any]) -> str:
    return str(wheel.get("name") or wheel["url"].rsplit("/", 1)[1])


def installed_digest(report: Mapping[str, Any], package: str) -> str:
    """Return the SHA-256 of the file that pip installed for a package.

    Parameters
    ----------
    report : mapping
        Output of ``pip install --report``.
    package : str
        A canonical name.
    """
    item = next(item for item in report["install"] if canonical(item["metadata"]["name"]) == package)
    return str(item["download_info"]["archive_info"]["hashes"]["sha256"])


def groups_of(site_packages: Path) -> dict[str, tuple[str, ...]]:
    """Return the groups that need each installed package: ``core``, extras (``dev`` if no other), ``build``."""
    installed = installed_packages([site_packages])
    needs = {extra: closure(installed, "codex-ml", [extra]) for extra in EXTRAS}
    core = closure(installed, "codex-ml", [])
    build = {name for backend in BUILD_BACKENDS for name in closure(installed, backend, [])}
    groups = {}
    for name in installed:
        extras = [extra for extra in EXTRAS if name in needs[extra] and extra != "dev"]
        found = [CORE] if name in core else extras or ["dev"]
        groups[name] = tuple(found + [BUILD] * (name in build))
    return groups


class Uv:
    """uv, which asks the package index for hashes (``UV_DEFAULT_INDEX`` names another index)."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program, self._directory = program, directory

    def resolve(self, *arguments: str) -> dict[str, tuple[str, list[str], bool]]:
        """Return version, hashes, and whether there is no wheel, by canonical name.

        Raises
        ------
        subprocess.CalledProcessError
            If uv cannot resolve.
        """
        output = self._directory / "pylock.toml"
        output.unlink(missing_ok=True)
        options = ["--universal", "--python-version", "3.11", "--format", "pylock.toml", "--quiet", "--no-header"]
        command = [str(self._program), "pip", "compile", *arguments, *options, "--output-file", str(output)]
        subprocess.run(command, check=True)
        return packages_of_pylock(tomllib.loads(output.read_text(encoding="utf-8")))


def locked_packages(
    names: Iterable[str],
    resolved: Mapping[str, tuple[str, list[str], bool]],
    groups: Mapping[str, tuple[str, ...]],
) -> list[Locked]:
    """Return the entries of a lock file for these names, which are spelled as in the pins.

    Raises
    ------
    ValueError
        If the index has no file of a package for a supported platform.
    """
    packages = []
    for name in names:
        if canonical(name) not in resolved:
            raise ValueError(f"{name}: the index has no file of it for Linux on x86_64 or aarch64")
        version, digests, is_source_only = resolved[canonical(name)]
        packages.append(Locked(name, version, tuple(sorted(digests)), groups.get(canonical(name), ()), is_source_only))
    return packages


def torch_for_cpus(torch: Locked, installed: str, before: Path) -> Locked:
    """Return the entry of torch with the hashes of its builds for CPUs, which the index does not offer.

    These are the build that pip installed here, and those in the previous lock file for the same version: a build that
    another site added must not be lost. The hashes of the index are left out: pip would prefer its files, which are
    for CUDA.
    """
    old = read_lock(before).get("torch") if before.is_file() else None
    kept = old.digests if old is not None and old.version == torch.version else ()
    return replace(torch, digests=tuple(sorted({installed, *kept})))


def cuda_packages(uv: Uv, root: Path, pins: Sequence[str], resolved: Mapping[str, object]) -> list[Locked]:
    """Return the packages that torch for CUDA and the extra ``cuda`` need in addition to the resolved ones."""
    extras = [word for extra in ("tracking", "serve", "cuda") for word in ("--extra", extra)]
    with_cuda = uv.resolve(str(root / "pyproject.toml"), *extras, *pins)
    beyond = sorted(with_cuda.keys() - resolved.keys())
    return locked_packages(beyond, with_cuda, dict.fromkeys(beyond, (CUDA,)))


def write_tool_lock(file: Path, uv: Uv, pins_only: Path) -> None:
    """Write the lock of a tool's environment again: the same versions, the hashes of the index."""
    text = file.read_text(encoding="utf-8")
    header = "".join(f"{line}\n" for line in text.split("\n") if line.startswith("#"))
    names = re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)
    pins_only.write_text(
        "\n".join(re.findall(r"^[A-Za-z0-9._-]+==[^\s\\]+", text, re.MULTILINE)) + "\n", encoding="utf-8"
    )
    resolved = uv.resolve(str(pins_only), "--no-deps")
    file.write_text(lock_text(header, locked_packages(names, resolved, {})), encoding="utf-8")


def make_environment(
    root: Path, directory: Path, torch: str, *, keep_versions: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Make a clean environment with everything, and return the output of ``pip freeze`` and the reports of pip.

    Raises
    ------
    subprocess.CalledProcessError
        If pip cannot install a package.
    """
    venv.create(directory, with_pip=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip"]
    constraint = ["--constraint", str(root / "constraints.txt")] if keep_versions else []
    reports = []
    # torch first: with the rest, pip may draw in a CUDA build on a machine without a GPU. The build backends last, so
    # that an environment without build isolation can be made too.
    for number, wanted in enumerate(([torch], ["--editable", ".[dev]"], ["--upgrade", *BUILD_BACKENDS])):
        report = directory / f"report-{number}.json"
        command = [*pip, "install", "--quiet", "--report", str(report), *constraint, *wanted]
        subprocess.run(command, check=True, cwd=root)
        reports.append(json.loads(report.read_text(encoding="utf-8")))
    frozen = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    return frozen, reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environment, ask it for its versions and the index for their hashes, and write the files."""
    parser = argparse.ArgumentParser(description="Writes constraints.txt and the hashed lock files again.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--torch", help="what to install first, such as torch==2.13.0 (default: as pyproject.toml)")
    parser.add_argument(
        "--keep-versions",
        action="store_true",
        help="keep the versions of constraints.txt, and look up only their hashes",
    )
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    torch = options.torch or torch_requirement((root / "pyproject.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="codex-ml-lock-") as temporary:
        directory = Path(temporary)
        frozen, reports = make_environment(root, directory / "environment", torch, keep_versions=options.keep_versions)
        constraints = constraints_of(frozen)
        (root / "constraints.txt").write_text(constraints, encoding="utf-8")
        (site_packages,) = (directory / "environment" / "lib").glob("python*/site-packages")
        groups = groups_of(site_packages)
        uv = Uv(UV.ensure(root), directory)
        names = re.findall(r"^([A-Za-z0-9._-]+)==", constraints, re.MULTILINE)
        resolved = uv.resolve(str(root / "constraints.txt"), "--no-deps")
        packages = locked_packages(names, resolved, groups)
        digest = installed_digest(reports[0], "torch")
        for_cpus = [torch_for_cpus(one, digest, root / LOCK) if one.name == "torch" else one for one in packages]
        (root / LOCK).write_text(lock_text(LOCK_HEADER, for_cpus), encoding="utf-8")
        pins = ["--constraint", str(root / "constraints.txt")]
        if options.keep_versions and (root / CUDA_LOCK).is_file():
            before = [f"{one.name}=={one.version}\n" for one in read_lock(root / CUDA_LOCK).values()]
            (directory / "cuda.txt").write_text("".join(before), encoding="utf-8")
            pins += ["--constraint", str(directory / "cuda.txt")]
        packages += cuda_packages(uv, root, pins, resolved)
        (root / CUDA_LOCK).write_text(lock_text(CUDA_HEADER, packages), encoding="utf-8")
        for name in TOOL_LOCKS:
            write_tool_lock(root / name, uv, directory / "pins.txt")
    print(f"wrote constraints.txt, {LOCK}, {CUDA_LOCK} and {', '.join(TOOL_LOCKS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
