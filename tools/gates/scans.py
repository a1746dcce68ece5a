"""The list of scans, and for each what must be seen before it counts as passed: an exit code of 0 alone does not.

What pre-commit checks too is run through it, so `.pre-commit-config.yaml` stays the one list of those checks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

CONFIGURATION = Path(".pre-commit-config.yaml")
REHEARSED = "REHEARSED"
# Hooks with a line of their own in the summary; the rest are one line, `pre-commit`.
OWN_LINES: Mapping[str, tuple[str, ...]] = {
    "tests": ("fast-tests",),
    "types": ("mypy", "pyright"),
    "imports": ("import-linter",),
    "bandit": ("bandit",),
    "semgrep": ("semgrep",),
    "secrets": ("secrets",),
}


class ConfigurationError(Exception):
    """The list of hooks cannot be read, or lacks one that has a line of its own."""


@dataclass(frozen=True)
class Scan:
    """One scan: the commands it is made of, and for those of pre-commit the hooks that must say "Passed"."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    hooks: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def read_hooks(root: Path) -> dict[str, str]:
    """Return the hooks of the gate: name by id.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or a hook with a line of its own is gone.
    """
    try:
        document = yaml.safe_load((root / CONFIGURATION).read_text(encoding="utf-8"))
        hooks = {str(hook["id"]): str(hook["name"]) for repository in document["repos"] for hook in repository["hooks"]}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{CONFIGURATION} cannot be read: {error}") from error
    expected = {hook for own in OWN_LINES.values() for hook in own}
    if missing := sorted(expected - set(hooks)):
        raise ConfigurationError(f"{CONFIGURATION} has no hook {', '.join(missing)}: nothing would be scanned")
    return hooks


def all_scans(root: Path, *, rehearse_audit: bool) -> list[Scan]:
    """Return every scan of the gate, in the order in which they run: the quick ones first.

    Parameters
    ----------
    root : Path
        The checkout.
    rehearse_audit : bool
        Whether the audit may be rehearsed where the machine has no database.
    """
    hooks = read_hooks(root)
    own = {hook for names in OWN_LINES.values() for hook in names}
    audit = _tool("pip_audit_wrapper.py", *(["--rehearse-without-database"] if rehearse_audit else []))
    return [
        Scan("licences", (_tool("check_licences.py"),)),
        Scan("sbom", (_tool("make_sbom.py", "--check"),)),
        Scan("audit", (audit,)),
        _of_hooks("secrets", hooks),
        _of_hooks("bandit", hooks),
        _of_hooks("semgrep", hooks),
        _of_hooks("imports", hooks),
        _of_hooks("types", hooks),
        Scan(
            "pre-commit",
            (_pre_commit(),),
            {hook: name for hook, name in hooks.items() if hook not in own},
            # A user's SKIP is not passed on: only what has a line of its own is left out here.
            {"SKIP": ",".join(sorted(own))},
        ),
        _of_hooks("tests", hooks),
    ]


def hooks_not_passed(scan: Scan, output: str) -> list[str]:
    """Return the hooks of a scan that did not say "Passed": failed, skipped for want of files, or never run."""
    passed = {line.partition("..")[0].strip() for line in output.splitlines() if line.rstrip().endswith("Passed")}
    return [hook for hook, name in scan.hooks.items() if name not in passed]


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(Path("tools") / name), *arguments)


def _pre_commit(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose", "--color", "never", *arguments)


def _of_hooks(name: str, hooks: Mapping[str, str]) -> Scan:
    own = OWN_LINES[name]
    return Scan(name, tuple(_pre_commit(hook) for hook in own), {hook: hooks[hook] for hook in own}, {"SKIP": ""})
