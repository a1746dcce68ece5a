"""Writes the bill of materials (CycloneDX 1.6, JSON) of codex-ml and what it draws in, or compares it.

It describes an installation of the package with its extras for users. The same packages give the same bytes: no time of
making and no random number is in it. What torch draws in for CUDA differs between machines and is left out, by name.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from installed_packages import NO_ANSWER, Package, closure, installed_packages
from tracked_files import report

COMMITTED = Path("docs") / "sbom.cdx.json"
PROJECT = "codex-ml"
# Not for users: tools of developers, and the package that only a machine with a GPU needs.
EXTRAS_LEFT_OUT = ("dev", "docs", "cuda")
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def project_package(project: Mapping[str, Any]) -> Package:
    """Return the checkout itself as ``pyproject.toml`` has it: what is installed of it may be from last week.

    Parameters
    ----------
    project : mapping
        The table ``project``.
    """
    requires = list(project.get("dependencies", []))
    for extra, texts in project.get("optional-dependencies", {}).items():
        for text in texts:
            requirement, _, marker = text.partition(";")
            condition = f"({marker.strip()}) and " if marker else ""
            requires.append(f"{requirement.strip()} ; {condition}extra == '{extra}'")
    licence = project.get("license", NO_ANSWER)
    return Package(PROJECT, project["version"], licence if isinstance(licence, str) else NO_ANSWER, tuple(requires))


def make_sbom(packages: Mapping[str, Package], extras: Sequence[str]) -> dict[str, Any]:
    """Return the bill of materials of what `PROJECT` with these extras draws in.

    Raises
    ------
    ValueError
        If something that is required is not installed, or nothing is required at all.
    """
    try:
        edges = closure(packages, PROJECT, extras)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is required and not installed here") from error
    names = [name for name in edges if not name.startswith(CUDA_PREFIXES)]
    if len(names) < 2:
        raise ValueError(f"{PROJECT} requires nothing: that is not so")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(packages[PROJECT], "application")},
        "components": [_component(packages[name], "library") for name in names if name != PROJECT],
        "dependencies": [
            {"ref": _purl(packages[name]), "dependsOn": [_purl(packages[one]) for one in edges[name] if one in names]}
            for name in names
        ],
    }


def as_text(sbom: Mapping[str, Any]) -> str:
    """Return the bytes that are written and compared."""
    return json.dumps(sbom, indent=1, ensure_ascii=False) + "\n"


def differences(committed: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Return what was added, removed or changed, one line each."""
    before, after = _by_name(committed), _by_name(made)
    problems = [f"{name} {after[name]['version']}: not in {COMMITTED}" for name in sorted(set(after) - set(before))]
    problems += [f"{name} {before[name]['version']}: not here" for name in sorted(set(before) - set(after))]
    for name in sorted(set(before) & set(after)):
        if before[name] != after[name]:
            problems.append(f"{name}: {_summary(before[name])} there, {_summary(after[name])} here")
    if not problems and committed != made:
        problems.append("the same packages, required in another way")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare, and return the exit code."""
    parser = argparse.ArgumentParser(description="Writes the bill of materials, or compares it with the committed one.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--output", type=Path, help=f"where to write it (default: {COMMITTED})")
    parser.add_argument("--check", action="store_true", help=f"also compare it with {COMMITTED}, which is not written")
    parser.add_argument("--site-packages", type=Path, action="append", help="default: the packages of this Python")
    chosen = parser.parse_args(arguments)
    if chosen.check and chosen.output is None:
        chosen.output = chosen.root / ".cache" / "gates" / COMMITTED.name
    output = chosen.output or chosen.root / COMMITTED
    try:
        project = tomllib.loads((chosen.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = sorted(set(project.get("optional-dependencies", {})) - set(EXTRAS_LEFT_OUT))
        packages = {**installed_packages(chosen.site_packages), PROJECT: project_package(project)}
        sbom = make_sbom(packages, extras)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(as_text(sbom), encoding="utf-8")
        print(f"wrote {output}")
        if not chosen.check:
            return 0
        committed = json.loads((chosen.root / COMMITTED).read_text(encoding="utf-8"))
        problems = differences(committed, sbom)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return report([f"no bill of materials: {error}"], "the bill of materials")
    if problems:
        problems.append("if that is meant: make sbom, and commit it")
    return report(problems, f"{len(sbom['components'])} components")


def _component(package: Package, kind: str) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": _purl(package),
        "name": package.name,
        "version": package.version,
        "purl": _purl(package),
    }
    if package.licence == NO_ANSWER or package.licence.startswith("LicenseRef-"):
        # A name of ours is no SPDX licence.
        component["licenses"] = [{"license": {"name": package.licence.removeprefix("LicenseRef-")}}]
    else:
        component["licenses"] = [{"expression": package.licence}]
    return component


def _purl(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"


def _by_name(sbom: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    components = [*sbom["components"], sbom["metadata"]["component"]]
    return {component["name"]: component for component in components}


def _summary(component: Mapping[str, Any]) -> str:
    licences = [one.get("expression") or one["license"].get("name") for one in component.get("licenses", [])]
    return f"{component['version']} ({', '.join(licences)})"


if __name__ == "__main__":
    sys.exit(main())
