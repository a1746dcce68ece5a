"""The checks in clean environments: `nox -s lint type tests coverage gates docs`. The checks are those of the gate.

Each session is a plain virtual environment below ``.cache/nox`` with the versions of ``constraints.txt``. Where the
packages come from is pip's ordinary configuration: with a folder of wheels (PIP_NO_INDEX=1, PIP_FIND_LINKS=…)
nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.envdir = ".cache/nox"
nox.options.sessions = ["lint", "type", "tests", "coverage"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_external_run = True
nox.options.stop_on_first_error = False

# The hooks of the gate that each session runs in its own environment.
LINT_HOOKS = (
    "ruff-lint",
    "ruff-format",
    "lint-makefile",
    "vulture",
    "import-linter",
    "mock-sweep",
    "test-names",
    "words",
    "dead-options",
    "hashed-lock",
    "bandit",
    "semgrep",
    "secrets",
    "docs",
)
TYPE_HOOKS = ("mypy", "pyright")
# As in codex.mk: a process for each processor, four at most.
PARALLEL = ("-n", "logical", "--maxprocesses=4", "--dist=worksteal")


def install(session: nox.Session) -> None:
    """Install the checkout with what developers need, torch first so that no CUDA build is drawn in."""
    environment = {"PIP_CONSTRAINT": str(Path("constraints.txt").resolve())}
    session.install("torch", env=environment)
    session.install("--editable", ".[dev]", env=environment)


def run_hooks(session: nox.Session, hooks: tuple[str, ...]) -> None:
    """Run hooks of the gate; each is its own command so that the name of a failing one stands last."""
    for hook in hooks:
        session.run("pre-commit", "run", hook, "--all-files", env={"PRE_COMMIT_HOME": ".cache/pre-commit"})


@nox.session
def lint(session: nox.Session) -> None:
    """Style, structure, security and documentation."""
    install(session)
    run_hooks(session, LINT_HOOKS)


@nox.session(name="type")
def types(session: nox.Session) -> None:
    """Types by mypy (strict) and pyright (standard)."""
    install(session)
    run_hooks(session, TYPE_HOOKS)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests of the gate (those that are not slow), or what is named behind ``--``; `coverage` runs every one."""
    install(session)
    session.run("pytest", "-q", *PARALLEL, *(session.posargs or ("-m", "not slow")))


@nox.session
def coverage(session: nox.Session) -> None:
    """Every test with branch coverage, which may not fall below the ratchet."""
    install(session)
    session.run("pytest", "-q", *PARALLEL, "--cov", *session.posargs)


@nox.session
def gates(session: nox.Session) -> None:
    """Run every scan of `scripts/codex_local_gates.sh`; options of it behind ``--``."""
    install(session)
    session.run("python", "tools/tool_environments.py", "--setup", "semgrep", "pip-audit")
    session.run("scripts/codex_local_gates.sh", *session.posargs, env={"PYTHON": "python"}, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation strictly."""
    install(session)
    run_hooks(session, ("docs",))
