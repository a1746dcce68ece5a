"""The ways in which an audit ends, as exit codes and as exceptions that carry one."""

from __future__ import annotations

from enum import IntEnum


class Verdict(IntEnum):
    """The exit codes of the audit; only 0 means that every package was looked at and none is known to be vulnerable."""

    CLEAN = 0
    VULNERABLE = 1
    NOT_RUN = 2
    NO_DATABASE = 3
    STALE = 4


class AuditError(Exception):
    """An audit that gives no answer; the message says what to do."""

    verdict = Verdict.NOT_RUN


class DatabaseError(AuditError):
    """The database is missing, or cannot be believed."""

    verdict = Verdict.NO_DATABASE


class StaleDatabaseError(AuditError):
    """The database is too old to say that a package is clean."""

    verdict = Verdict.STALE
