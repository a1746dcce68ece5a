"""Runs pip-audit against the responder, and believes it only when it has asked of every package.

pip-audit exits with 1 for a finding and for a crash. So the exit code alone says nothing: a fresh report must be there,
it must name exactly the packages that were to be audited, and each must have been asked of.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from osv_audit.errors import AuditError
from osv_audit.responder import LoopbackService, Responder

TIMEOUT_SECONDS = 600
_OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}
_HASH = re.compile(r"\s+--hash=\S+")


@dataclass(frozen=True)
class Finding:
    """A package with a known vulnerability: its name, version, all names of the advisory, and what mends it."""

    package: str
    version: str
    identifiers: tuple[str, ...]
    fixed_in: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class Target:
    """What is audited: the packages, and the options that let pip-audit see the same ones."""

    description: str
    packages: Mapping[str, str]
    options: tuple[str, ...]


def environment_target(site_packages: Sequence[Path]) -> Target:
    """Return the packages that are installed in these directories.

    Raises
    ------
    AuditError
        If there are none, or one cannot be read.
    """
    packages: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=[str(path) for path in site_packages]):
        metadata = distribution.metadata
        # What is missing is None to the standard library and a KeyError to its backport, once that was imported.
        name = metadata["Name"] if "Name" in metadata else ""  # noqa: SIM401 - there is no `get` in its interface
        version = metadata["Version"] if "Version" in metadata else ""  # noqa: SIM401
        if not name or not version:
            raise AuditError(f"an installed package has no name or version: {getattr(distribution, '_path', '')}")
        # The first found is the one that is imported.
        packages.setdefault(canonicalize_name(name), version)
    if not packages:
        raise AuditError(f"no package is installed in {', '.join(map(str, site_packages))}: nothing would be audited")
    options = [text for path in site_packages for text in ("--path", str(path))]
    return Target("installed packages", packages, tuple(options))


def requirements_target(file: Path) -> Target:
    """Return the pinned packages of a requirements file, with or without hashes.

    Raises
    ------
    AuditError
        If it cannot be read, holds none, or a line is not pinned with ``==``.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{file} cannot be read: {error}") from error
    packages: dict[str, str] = {}
    hashed = False
    for line in text.replace("\\\n", " ").splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        bare = _HASH.sub("", stripped)
        hashed = hashed or bare != stripped
        if not bare:
            continue
        try:
            requirement = Requirement(bare)
        except InvalidRequirement as error:
            raise AuditError(f"{file}: {bare!r} is no pinned requirement (name==version)") from error
        pins = list(requirement.specifier)
        if len(pins) != 1 or pins[0].operator != "==" or pins[0].version.endswith("*"):
            raise AuditError(f"{file}: {bare!r} is not pinned with ==, so its version is not known")
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        packages[canonicalize_name(requirement.name)] = pins[0].version
    if not packages:
        raise AuditError(f"{file} names no package for this machine: nothing would be audited")
    checks = ("--require-hashes",) if hashed else ("--no-deps",)
    return Target(f"pins of {file}", packages, ("--requirement", str(file), *checks, "--disable-pip"))


def run_pip_audit(program: Path, target: Target, responder: Responder) -> list[Finding]:
    """Audit the packages with pip-audit and return what it found.

    Raises
    ------
    AuditError
        If pip-audit cannot be started, leaves no fresh report, or has not asked of each package.
    """
    if not target.packages:
        raise AuditError(f"{target.description}: there is nothing to audit")
    with tempfile.TemporaryDirectory(prefix="codex-ml-audit-") as directory, LoopbackService(responder) as service:
        report_file = Path(directory) / "report.json"
        command = [str(program), *target.options, "--vulnerability-service", "osv", "--osv-url", service.url]
        command += ["--format", "json", "--aliases", "on", "--desc", "on", "--progress-spinner", "off"]
        command += ["--cache-dir", str(Path(directory) / "cache"), "--output", str(report_file)]
        environment = {**_without_proxies(), **_OFFLINE}
        try:
            answer = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
            )
        except OSError as error:
            raise AuditError(f"pip-audit cannot be started ({error.strerror}): make gates-setup") from error
        except subprocess.TimeoutExpired as error:
            raise AuditError(f"pip-audit did not end within {TIMEOUT_SECONDS} seconds") from error
        said = " | ".join(answer.stderr.strip().splitlines()[-3:])
        if not report_file.is_file():
            raise AuditError(f"pip-audit exits with {answer.returncode} and leaves no report: {said}")
        try:
            findings = findings_of(json.loads(report_file.read_text(encoding="utf-8")), target, responder)
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(
                f"pip-audit exits with {answer.returncode} and its report cannot be read: {error}"
            ) from error
    if answer.returncode != (1 if findings else 0):
        raise AuditError(f"pip-audit exits with {answer.returncode} and reports {len(findings)} findings: {said}")
    return findings


def findings_of(report: Mapping[str, Any], target: Target, responder: Responder) -> list[Finding]:
    """Return the findings of a report that speaks of exactly the packages of the target.

    Raises
    ------
    AuditError
        If a package was skipped, left out or not asked of.
    """
    audited: set[str] = set()
    findings: list[Finding] = []
    for dependency in report["dependencies"]:
        name = canonicalize_name(dependency["name"])
        if "skip_reason" in dependency:
            raise AuditError(f"pip-audit has left out {name}: {dependency['skip_reason']}")
        audited.add(name)
        findings.extend(
            Finding(
                package=name,
                version=dependency["version"],
                identifiers=(vulnerability["id"], *vulnerability["aliases"]),
                fixed_in=tuple(vulnerability["fix_versions"]),
                summary=vulnerability.get("description", ""),
            )
            for vulnerability in dependency["vulns"]
        )
    if audited != set(target.packages):
        raise AuditError(f"pip-audit saw other packages than are there: {_some(audited ^ set(target.packages))}")
    asked = {name for name, _ in responder.answered}
    if responder.refused or asked != audited:
        raise AuditError(f"not every package was asked of: {_some(asked ^ audited)} {responder.refused[:3]}")
    return findings


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _without_proxies() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("PIP_AUDIT_")
    }
