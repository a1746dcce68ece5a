"""The whole audit against planted records, for a machine without a database: proof of the chain, not of packages.

A machine that has no database cannot audit. Saying so is the truth, and stays a failure unless somebody asks for this
instead; then its output, and the gate's summary, say that the dependencies were not judged.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from osv_audit.auditing import AuditSettings, audit
from osv_audit.database import AgeLimits
from osv_audit.errors import Verdict
from osv_audit.importing import install
from osv_audit.running import Target, requirements_target

PLANTED = "codex-ml-planted-package"
IDENTIFIER = "CODEX-PLANTED-1"
Say = Callable[[str], None]


def planted_record(modified: datetime) -> dict[str, object]:
    """Return an OSV record of a package that does not exist, of which 1.0 is affected and 1.1 is not."""
    stamp = f"{modified:%Y-%m-%dT%H:%M:%SZ}"
    return {
        "schema_version": "1.6.0",
        "id": IDENTIFIER,
        "modified": stamp,
        "published": stamp,
        "summary": "planted to rehearse the audit",
        "affected": [
            {
                "package": {"name": PLANTED, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
            }
        ],
    }


def rehearse(program: Path, environment: Callable[[], Target], now: datetime, emit: Say) -> Verdict:
    """Import a planted database and show each verdict once; CLEAN when all were as they must be, else NOT_RUN."""
    with tempfile.TemporaryDirectory(prefix="codex-ml-rehearsal-") as name:
        directory = Path(name)
        settings = _installed(directory / "fresh", program, now - timedelta(hours=1), now)
        stale = _installed(directory / "stale", program, now - timedelta(days=40), now)
        missing = AuditSettings(directory / "none", program, directory / "no-waivers", AgeLimits())
        cases: list[tuple[str, AuditSettings, Callable[[], Target], Verdict]] = [
            ("an affected pin", settings, _pin(directory, "1.0"), Verdict.VULNERABLE),
            ("a mended pin", settings, _pin(directory, "1.1"), Verdict.CLEAN),
            ("a database of 40 days", stale, _pin(directory, "1.1"), Verdict.STALE),
            ("no database", missing, _pin(directory, "1.1"), Verdict.NO_DATABASE),
            ("the installed packages", settings, environment, Verdict.CLEAN),
        ]
        failed = False
        for what, used, target, expected in cases:
            said: list[str] = []
            verdict = audit(used, target, now, said.append)
            failed = failed or verdict != expected
            if verdict == expected:
                emit(f"as it must be: {what}: {verdict.name} ({said[-1]})")
            else:
                emit(f"WRONG: {what}: {verdict.name}, expected {expected.name}: {' / '.join(said)}")
    if failed:
        return Verdict.NOT_RUN
    emit("REHEARSED with planted records: the audit works here. Whether a dependency is vulnerable was NOT looked at.")
    return Verdict.CLEAN


def _installed(directory: Path, program: Path, modified: datetime, now: datetime) -> AuditSettings:
    medium = directory / "medium"
    medium.mkdir(parents=True)
    (medium / "record.json").write_text(json.dumps(planted_record(modified)), encoding="utf-8")
    target = directory / "database"
    install(medium, target, None, allow_older=False, now=now)
    return AuditSettings(target, program, directory / "no-waivers", AgeLimits())


def _pin(directory: Path, version: str) -> Callable[[], Target]:
    file = directory / f"pinned-{version}.txt"
    file.write_text(f"{PLANTED}=={version}\n", encoding="utf-8")
    return lambda: requirements_target(file)
