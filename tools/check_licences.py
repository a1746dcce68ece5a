"""The licence of every installed package is one that was allowed: `licences.toml` lists them, with exceptions.

A licence that is not listed fails, and so does a package whose metadata do not say: somebody has to look.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from installed_packages import NO_ANSWER, Package, installed_packages
from tracked_files import report

LIST = Path("tools") / "licences.toml"
# The checkout itself, and what every environment has.
OURS = "codex-ml"
_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9.+:-]+)")


@dataclass(frozen=True)
class Judgement:
    """What somebody found out about one package, and why it may be used."""

    licence: str
    reason: str


@dataclass(frozen=True)
class AllowList:
    """The licences that may be used by anything, and the packages that were judged one by one."""

    allowed: frozenset[str]
    judged: Mapping[str, Judgement]


def read_allow_list(text: str) -> AllowList:
    """Return the allow list of a TOML document.

    Raises
    ------
    ValueError
        If it allows nothing, or a judgement has no reason.
    """
    document = tomllib.loads(text)
    allowed = frozenset(document["allowed"])
    if not allowed:
        raise ValueError("allows no licence")
    judged = {}
    for name, entry in document.get("package", {}).items():
        if set(entry) != {"licence", "reason"} or not all(str(entry[key]).strip() for key in entry):
            raise ValueError(f"package {name}: expected licence and reason")
        judged[name] = Judgement(entry["licence"], entry["reason"])
    return AllowList(allowed, judged)


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Return whether an SPDX expression can be met with the licences allowed: one side of OR, both sides of AND.

    Raises
    ------
    ValueError
        If it is no expression.
    """
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r"\s", "", expression):
        raise ValueError(f"{expression!r} is no SPDX expression")
    result, rest = _either(tokens, allowed)
    if rest:
        raise ValueError(f"{expression!r} is no SPDX expression")
    return result


def problems_of(packages: Mapping[str, Package], allow_list: AllowList) -> list[str]:
    """Return the packages whose licence is not allowed or not known, and judgements that are not needed any more."""
    problems = []
    for name, package in sorted(packages.items()):
        if name == OURS:
            continue
        try:
            passes = package.licence != NO_ANSWER and is_allowed(package.licence, allow_list.allowed)
        except ValueError:
            passes = False
        judgement = allow_list.judged.get(name)
        if judgement is not None and passes:
            problems.append(f"{LIST}: {name} says {package.licence} itself, which is allowed: delete the judgement")
        elif judgement is None and not passes:
            said = "does not say its licence" if package.licence == NO_ANSWER else f"has the licence {package.licence}"
            problems.append(f"{name} {package.version} {said}: not allowed; judge it in {LIST}, or do without it")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what is installed and return the exit code."""
    parser = argparse.ArgumentParser(description="Checks the licence of every installed package against an allow list.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--site-packages", type=Path, action="append", help="default: the packages of this Python")
    chosen = parser.parse_args(arguments)
    try:
        allow_list = read_allow_list((chosen.root / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return report([f"{LIST} cannot be read: {error}"], "the allow list")
    packages = installed_packages(chosen.site_packages)
    if not set(packages) - {OURS}:
        return report(["no package is installed here: nothing was checked"], "the environment")
    problems = problems_of(packages, allow_list)
    return report(problems, f"{len(packages)} packages, {len(allow_list.allowed)} licences allowed")


def _either(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    result, rest = _both(tokens, allowed)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:], allowed)
        result = result or other
    return result, rest


def _both(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    result, rest = _one(tokens, allowed)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:], allowed)
        result = result and other
    return result, rest


def _one(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    if tokens and tokens[0] == "(":
        result, rest = _either(tokens[1:], allowed)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return result, rest[1:]
    if not tokens or tokens[0] in ("(", ")") or tokens[0].upper() in ("AND", "OR", "WITH"):
        raise ValueError("a licence is missing")
    if tokens[1:2] == ["WITH"]:
        # An exception gives more than its licence alone.
        return " ".join(tokens[:3]) in allowed or tokens[0] in allowed, tokens[3:]
    return tokens[0] in allowed, tokens[1:]


if __name__ == "__main__":
    sys.exit(main())
