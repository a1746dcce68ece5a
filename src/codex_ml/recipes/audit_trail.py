"""The safety audit of the data in a run's events: whole after any number of kills, and counted for a verification."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from codex_ml.errors import UserError
from codex_ml.monitoring.codex_logging import RESERVED_KEYS, read_ndjson
from codex_ml.safety.audit import Bypass
from codex_ml.tracking.context import ExperimentContext

# What stands before this event is of records or a policy that the run no longer has.
RESTARTED = "safety_audit_restarted"
_STAGE = "data"
_FINDING, _BYPASS = "safety_finding", "safety_bypass"
# When filters were turned off is said once for each who turned them off, however often the run goes on.
_OF_THE_LINE = (*RESERVED_KEYS, "run_id", "when")


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
    written: Counter[str] = Counter()
    try:
        there = current_audit(read_ndjson(path))
    except UserError:
        # A line that cannot be read may have been any finding: none is taken for written.
        is_other = True
    else:
        written, is_other = Counter(_identity(event) for event in there), _is_of_others(there, found)
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
        elif line.get("kind") == _BYPASS or (line.get("kind") == _FINDING and line.get("stage") == _STAGE):
            audit.append(line)
    return audit


def bypasses_in(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the events of a run say of each bypass, oldest first: stage, reason, who, when, policy."""
    names = [field.name for field in fields(Bypass)]
    return [{name: e.get(name) for name in names} for e in current_audit(lines) if e.get("kind") == _BYPASS]


def recorded_bypasses(path: Path, own: Bypass | None) -> list[dict[str, Any]]:
    """Return the bypasses of a run for its provenance, after its audit was written; none where the filters are on.

    That of this process is among them, also where the events could not be written.
    """
    if own is None:
        return []
    try:
        recorded = bypasses_in(read_ndjson(path))
    except UserError:
        recorded = []
    known = {_identity(bypass) for bypass in recorded}
    return recorded if _identity(own.to_json()) in known else [*recorded, own.to_json()]


def findings_by_rule(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the findings in the data that a run has now, as provenance counts them."""
    return dict(Counter(str(e.get("rule_id")) for e in current_audit(lines) if e.get("kind") == _FINDING))


def _is_of_others(there: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether an audit is of other records or another policy; who turned the filters off makes no difference."""
    expected = Counter(_identity(event, without="who") for event in found)
    written = Counter(_identity(event, without="who") for event in there if event.get("kind") == _FINDING)
    off = {_identity(event, without="who") for event in there if event.get("kind") == _BYPASS}
    return not (written <= expected and off <= set(expected))


def _identity(event: Mapping[str, Any], without: str = "") -> str:
    own = {key: value for key, value in event.items() if key not in (*_OF_THE_LINE, without)}
    return json.dumps(own, sort_keys=True)
