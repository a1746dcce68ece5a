"""The audit of the data in a run's events: completed by what is there, and told apart from that of other records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.monitoring.codex_logging import no_redaction, read_ndjson
from codex_ml.recipes.train.run_files import RESTARTED, current_audit, findings_by_rule, write_audit
from codex_ml.tracking.context import ExperimentContext
from codex_ml.tracking.sinks import NdjsonSink, RunInfo


def finding(number: int, rule: str = "email") -> dict[str, Any]:
    """Return an event as the safety audit makes it."""
    return {
        "kind": "safety_finding",
        "stage": "data",
        "record_id": f"records.jsonl:{number}",
        "field": "prompt",
        "rule_id": rule,
        "offset": number,
        "length": 5,
        "action": "redact",
    }


class CountedSyncs(Storage):
    """Remembers how many audit lines a log held each time it was forced to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines_at_sync: list[int] = []

    def fsync(self, descriptor: int) -> None:
        """Count, then do it."""
        self.lines_at_sync.append(len(current_audit(read_ndjson(self.path))))
        super().fsync(descriptor)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Return where the events of the run lie."""
    return tmp_path / "events.ndjson"


@contextmanager
def context_of(
    events: Path, redact: Callable[[Any], Any] = no_redaction, storage: Storage | None = None
) -> Iterator[ExperimentContext]:
    """Open the run's events as a process does."""
    run = RunInfo(run_id="one", name="run", directory_name="run", experiment="tests", resumed=False, tracker_run_ids={})
    sink = NdjsonSink(events.parent, redact=redact, storage=storage)
    with ExperimentContext(run, sink, redact=redact, on_warning=lambda _: None) as context:
        yield context


def process(events: Path, found: list[dict[str, Any]], redact: Callable[[Any], Any] = no_redaction) -> None:
    """Be one process of the run that found this in its data."""
    with context_of(events, redact) as context:
        write_audit(found, events, context, redact)


def record_ids(events: Path) -> list[str]:
    """Return the records of the findings that the run has now."""
    return [event["record_id"] for event in current_audit(read_ndjson(events))]


@pytest.mark.parametrize("written", [0, 1, 4, 5])
def test_write_audit_after_a_kill_part_way_adds_only_what_is_missing(events, written):
    """None, some or all were written by the process before: each stands there once, in order."""
    found = [finding(number) for number in range(5)]
    with context_of(events) as context:
        for event in found[:written]:
            context.emit(event)
    process(events, found)
    process(events, found)
    assert record_ids(events) == [event["record_id"] for event in found]
    assert findings_by_rule(read_ndjson(events)) == {"email": 5}
    assert not any(event["kind"] == RESTARTED for event in read_ndjson(events))


def test_write_audit_equal_findings_are_counted_as_often_as_they_are(events):
    """Two events that are equal in every field are two."""
    process(events, [finding(1), finding(1)])
    process(events, [finding(1), finding(1), finding(1)])
    assert findings_by_rule(read_ndjson(events)) == {"email": 3}


def test_write_audit_redacted_record_id_is_known_again(events):
    """The id of a record may itself be redacted on its way to the file."""

    def redact(value: Any) -> Any:
        return {**value, "record_id": "[REDACTED]"} if "record_id" in value else value

    process(events, [finding(1), finding(2)], redact)
    process(events, [finding(1), finding(2)], redact)
    assert findings_by_rule(read_ndjson(events)) == {"email": 2}


def test_write_audit_of_other_records_begins_again_and_counts_only_the_new(events):
    """A run without a checkpoint may go on with other data; the old lines stay, and are told apart."""
    process(events, [finding(1), finding(2)])
    process(events, [finding(2), finding(3, "phone")])
    assert record_ids(events) == ["records.jsonl:2", "records.jsonl:3"]
    assert findings_by_rule(read_ndjson(events)) == {"email": 1, "phone": 1}
    assert sum(event["kind"] == "safety_finding" for event in read_ndjson(events)) == 4


def test_write_audit_events_that_cannot_be_read_are_written_anew(events):
    """A line that is no JSON may have been any finding."""
    process(events, [finding(1)])
    events.write_bytes(events.read_bytes() + b"not json\n")
    process(events, [finding(1)])
    assert events.read_text("utf-8").count('"safety_finding"') == 2
    assert f'"{RESTARTED}"' in events.read_text("utf-8")


def test_write_audit_is_on_the_disk_when_it_returns(events):
    """Provenance counts the findings: a power failure must not leave it with fewer events than it counts."""
    storage = CountedSyncs(events)
    with context_of(events, storage=storage) as context:
        write_audit([finding(1), finding(2)], events, context, no_redaction)
        assert storage.lines_at_sync[-1] == 2


def test_current_audit_findings_of_other_stages_are_none_of_the_data():
    """What filters find in outputs is counted elsewhere."""
    lines = [finding(1), {**finding(2), "stage": "output"}, {"kind": "plan"}]
    assert current_audit(lines) == [finding(1)]
