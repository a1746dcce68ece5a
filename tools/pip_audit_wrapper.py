"""Audits packages for known vulnerabilities without a network: pip-audit, asked of a database on this machine.

Exit codes: 0 every package was asked of and none is known to be vulnerable; 1 one is, or a waiver is over; 2 the audit
did not run; 3 the database is missing or corrupt; 4 it is too old.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from osv_audit.auditing import AuditSettings, audit
from osv_audit.database import AgeLimits, check_age, read_database
from osv_audit.errors import AuditError, Verdict
from osv_audit.importing import install, write_manifest
from osv_audit.rehearsal import rehearse
from osv_audit.running import Target, environment_target, requirements_target

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("audit", "import", "manifest", "status", "rehearse")
DATABASE_VARIABLE = "CODEX_OSV_DATABASE"


def default_database() -> Path:
    """Return where the database of this machine is."""
    return Path(os.environ.get(DATABASE_VARIABLE) or ROOT / ".cache" / "osv")


def _emit(line: str) -> None:
    print(line, flush=True)


def _now() -> datetime:
    return datetime.now(UTC)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--database", type=Path, default=default_database(), help=f"default: ${DATABASE_VARIABLE}, or .cache/osv"
    )
    shared.add_argument("--warn-days", type=float, default=AgeLimits.warn_days, help="warn of an older one (7)")
    shared.add_argument("--fail-days", type=float, default=AgeLimits.fail_days, help="refuse an older one (30)")
    installed = argparse.ArgumentParser(add_help=False)
    program = ROOT / ".cache" / "environments" / "pip-audit" / "bin" / "pip-audit"
    installed.add_argument("--pip-audit", type=Path, default=program, help="the program (default: of make gates-setup)")
    installed.add_argument(
        "--site-packages", type=Path, action="append", help="a directory of packages (default: of this Python)"
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    auditing = commands.add_parser(
        "audit", parents=[shared, installed], help="audit packages (what runs without a command)"
    )
    auditing.add_argument("--requirement", "-r", type=Path, help="a file of pinned requirements, not what is installed")
    auditing.add_argument(
        "--waivers", type=Path, default=ROOT / "tools" / "osv_audit" / "waivers.toml", help="a TOML file"
    )
    auditing.add_argument(
        "--rehearse-without-database",
        action="store_true",
        help="where there is none, rehearse, and say so; else exit 3",
    )
    importing = commands.add_parser("import", parents=[shared], help="check a database on a medium and install it")
    importing.add_argument("source", type=Path, help="all.zip, a directory that holds it, or a directory of records")
    importing.add_argument("--sha256", help="the digest of all.zip (default: of the manifest.json beside it)")
    importing.add_argument("--allow-older", action="store_true", help="also when the installed one has newer records")
    manifest = commands.add_parser("manifest", help="write manifest.json beside all.zip, to go onto the medium with it")
    manifest.add_argument("source", type=Path, help="all.zip, or a directory that holds it")
    commands.add_parser("status", parents=[shared], help="show the installed database and its age")
    commands.add_parser(
        "rehearse", parents=[installed], help="run the audit against planted records; judges no package"
    )
    return parser


def _environment(chosen: argparse.Namespace) -> Callable[[], Target]:
    paths = chosen.site_packages or [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    return lambda: environment_target(list(dict.fromkeys(path.resolve() for path in paths)))


def _audit(chosen: argparse.Namespace, now: datetime) -> Verdict:
    settings = AuditSettings(
        chosen.database, chosen.pip_audit, chosen.waivers, AgeLimits(chosen.warn_days, chosen.fail_days)
    )
    if chosen.rehearse_without_database and not chosen.database.exists():
        _emit(f"no database at {chosen.database}, and a rehearsal was asked for in that case")
        return rehearse(chosen.pip_audit, _environment(chosen), now, _emit)
    if chosen.requirement is not None:
        return audit(settings, lambda: requirements_target(chosen.requirement), now, _emit)
    return audit(settings, _environment(chosen), now, _emit)


def _import(chosen: argparse.Namespace, now: datetime) -> Verdict:
    manifest = install(chosen.source, chosen.database, chosen.sha256, allow_older=chosen.allow_older, now=now)
    _emit(f"installed at {chosen.database}: {manifest['records']} records, newest {manifest['newest_modified']}")
    return _status(chosen, now)


def _status(chosen: argparse.Namespace, now: datetime) -> Verdict:
    database = read_database(chosen.database)
    _emit(f"{database.place}: {len(database.advisories)} records, newest {database.newest:%Y-%m-%d %H:%M} UTC")
    age_days, to_warn = check_age(database, now, AgeLimits(chosen.warn_days, chosen.fail_days))
    limits = f"warned of after {chosen.warn_days:g} days, refused after {chosen.fail_days:g}"
    _emit(f"{'WARNING: ' if to_warn else ''}{age_days:.1f} days old ({limits})")
    return Verdict.CLEAN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0] not in COMMANDS and given[0] not in ("-h", "--help")):
        given.insert(0, "audit")
    chosen = _parser().parse_args(given)
    now = _now()
    try:
        if chosen.command == "audit":
            return _audit(chosen, now)
        if chosen.command == "import":
            return _import(chosen, now)
        if chosen.command == "manifest":
            _emit(f"wrote {write_manifest(chosen.source)}")
            return Verdict.CLEAN
        if chosen.command == "status":
            return _status(chosen, now)
        return rehearse(chosen.pip_audit, _environment(chosen), now, _emit)
    except AuditError as error:
        _emit(f"no answer: {error}")
        return error.verdict
    except OSError as error:
        _emit(f"no answer: {error}")
        return Verdict.NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
