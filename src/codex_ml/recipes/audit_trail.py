"""The safety audit of the data in a run's events: whole after any number of kills, and counted for a verification."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.errors import UserError
from codex_ml.monitoring.codex_logging import RESERVED_KEYS, read_ndjson
from codex_ml.tracking.context import ExperimentContext

# What stands before this event is of records or a policy that the run no longer has.
RESTARTED = "safety_audit_restarted"
_STAGE = "data"
_AUDIT_KINDS = ("safety_finding", "safety_bypass")
_OF_THE_LINE = (*RESERVED_KEYS, "run_id")


def write_audit(
    events: Sequence[Mapping[str, Any]], path: Path, context: ExperimentContext, redact: Callable[[Any], Any]
) -> None:
    """Bring the audit in ``events.ndjson`` up to what this process found, and force it to the disk.

    What is there decides, not whether a process was there before: one that was killed may have written none, some or
    all. Events of other records (no checkpoint yet, another test file) are followed by `RESTARTED` and by all anew.

    Parameters
    ----------
    events : sequence of mapping
        What the filters of this process found in the data.
    path : Path
        The run's ``events.ndjson``, with the lines of earlier processes.
    context : ExperimentContext
        Writes what is missing.
    redact : callable
        As the context redacts: a record's id may be a word of the data.
    """
    found = [redact(dict(event)) for event in events]
    missing = Counter(_identity(event) for event in found)
    try:
        written = Counter(_identity(event) for event in current_audit(read_ndjson(path)))
    except UserError:
        # A line that cannot be read may have been any finding: none is taken for written.
        written, is_other = Counter(), True
    else:
        is_other = not written <= missing
    if is_other:
        context.log_event(RESTARTED)
    else:
        missing -= written
    for event, as_written in zip(events, found, strict=True):
        if missing[_identity(as_written)] > 0:
            missing[_identity(as_written)] -= 1
            context.emit(event)
    context.sync()


def current_audit(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the audit events of the data that a run has now, oldest first."""
    audit: list[Mapping[str, Any]] = []
    for line in lines:
        if line.get("kind") == RESTARTED:
            audit.clear()
        elif line.get("kind") in _AUDIT_KINDS and line.get("stage") == _STAGE:
            audit.append(line)
    return audit


def findings_by_rule(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the findings in the data that a run has now, as provenance counts them."""
    return dict(Counter(str(e.get("rule_id")) for e in current_audit(lines) if e.get("kind") == "safety_finding"))


def _identity(event: Mapping[str, Any]) -> str:
    own = {key: value for key, value in event.items() if key not in _OF_THE_LINE}
    return json.dumps(own, sort_keys=True)
