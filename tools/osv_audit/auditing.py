"""One audit from database to verdict: read, age, ask, waive, and say what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from osv_audit.database import AgeLimits, Database, check_age, read_database
from osv_audit.errors import AuditError, Verdict
from osv_audit.responder import Responder
from osv_audit.running import Finding, Target, run_pip_audit
from osv_audit.waivers import Waiver, read_waivers, split_expired

Say = Callable[[str], None]


@dataclass(frozen=True)
class AuditSettings:
    """What an audit needs: where the database and pip-audit are, how old it may be, and what is waived."""

    database: Path
    program: Path
    waivers: Path
    limits: AgeLimits


def audit(settings: AuditSettings, make_target: Callable[[], Target], now: datetime, emit: Say) -> Verdict:
    """Audit packages against the database of this machine and return the verdict; every reason is said.

    Parameters
    ----------
    settings : AuditSettings
        Where things are.
    make_target : callable
        Returns what is audited; called after the database was found good.
    now : datetime
        The present moment.
    emit : callable
        Takes one line for people.
    """
    try:
        database = read_database(settings.database)
        emit(
            f"database: {database.place}, {len(database.advisories)} records, newest {database.newest:%Y-%m-%d %H:%M}, "
            + _origin(database)
        )
        limits = settings.limits
        emit(
            f"age: warned of after {limits.warn_days:g} days, refused after {limits.fail_days:g} (of the newest record)"
        )
        age_days, to_warn = check_age(database, now, limits)
        emit(f"{'WARNING: the database is ' if to_warn else 'the database is '}{age_days:.1f} days old")
        holding, expired = split_expired(read_waivers(settings.waivers, now.date()), now.date())
        target = make_target()
        findings = run_pip_audit(settings.program, target, Responder(database))
    except AuditError as error:
        emit(f"no answer: {error}")
        return error.verdict
    open_findings = _apply(findings, holding, emit)
    for finding in open_findings:
        emit(_line(finding))
    for waiver in expired:
        emit(f"waiver of {waiver.identifier} for {waiver.package} is over since {waiver.expires}: judge it again")
    emit(
        f"{target.description}: {len(target.packages)} packages asked of, {len(open_findings)} findings, "
        f"{len(findings) - len(open_findings)} waived, {len(expired)} waivers over"
    )
    return Verdict.VULNERABLE if open_findings or expired else Verdict.CLEAN


def _origin(database: Database) -> str:
    if database.sha256 is None:
        return "a directory of records, which has no digest"
    compared = "as its manifest says" if database.has_manifest else "with no manifest to compare it with"
    return f"SHA-256 {database.sha256[:16]}… {compared}"


def _apply(findings: list[Finding], waivers: tuple[Waiver, ...], emit: Say) -> list[Finding]:
    open_findings = []
    used = set()
    for finding in findings:
        covering = [one for one in waivers if one.covers(finding.package, set(finding.identifiers))]
        used.update(covering)
        if covering:
            emit(f"waived until {covering[0].expires}: {_line(finding)} ({covering[0].reason})")
        else:
            open_findings.append(finding)
    # No failure: another machine's database, or another set of packages, may need it.
    for waiver in waivers:
        if waiver not in used:
            emit(f"waiver of {waiver.identifier} for {waiver.package} covers nothing here: is it still needed?")
    return open_findings


def _line(finding: Finding) -> str:
    mended = f"mended in {', '.join(finding.fixed_in)}" if finding.fixed_in else "not mended in any version"
    names = ", ".join(dict.fromkeys(finding.identifiers))
    return f"{finding.package} {finding.version}: {names}: {finding.summary} ({mended})"
