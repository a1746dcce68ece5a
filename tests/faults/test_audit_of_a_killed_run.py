"""The safety audit of a run whose process died while it wrote the run's files: whole after the resume, and verified."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.recipes.verify.run import verify_run
from codex_ml.runs.layout import RunLayout

pytestmark = pytest.mark.slow
FINDINGS = 20


class ProcessDiedError(Exception):
    """Stands for the end of the process."""


class DyingStorage(Storage):
    """Writes so many audit lines and then none, or ends with the provenance; and lists what it forced to the disk."""

    def __init__(self, audit_lines: int | None = None) -> None:
        self._audit_lines = audit_lines
        self.order: list[str] = []

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Die at an audit line too many."""
        if b'"safety_finding"' in bytes(data):
            self.order.append("finding")
            if self._audit_lines is not None and self.order.count("finding") > self._audit_lines:
                raise ProcessDiedError
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Note which file it was."""
        self.order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Note the new file; where no audit line may be written at all, die right behind the provenance."""
        super().replace(source, target)
        self.order.append(target.name)
        if target.name == "provenance.json" and self._audit_lines is not None:
            raise ProcessDiedError


@pytest.fixture
def train_with_addresses(train_here, tmp_path, small_records):
    """Return what trains on records of which 20 hold an address."""
    data = tmp_path / "with-addresses.jsonl"
    address = "someone" + "@" + "example-clinic.org"
    rows = [{"prompt": f"Write letter {number} to {address}", "completion": "Sent."} for number in range(FINDINGS)]
    data.write_text(small_records.read_text("utf-8") + "".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return replace(train_here, data=data)


@pytest.mark.parametrize("audit_lines", [0, 7, FINDINGS])
def test_process_dies_among_its_first_files_resume_has_every_finding_once(train_with_addresses, audit_lines):
    """Before, among and behind the audit lines: each finding stands in the events, and verify counts them."""
    storage = DyingStorage(audit_lines)
    with pytest.raises(ProcessDiedError):
        train_with_addresses(storage=storage)
    run = train_with_addresses("run.resume_from=latest")
    assert len({event["record_id"] for event in run.events("safety_finding")}) == FINDINGS
    assert len(run.events("safety_finding")) == FINDINGS
    assert verify_run(RunLayout(run.directory), allowed=["code"]).verification.failing() == []


def test_resumed_run_without_its_findings_fails_its_verification(train_with_addresses):
    """A run of two processes owes its findings as much as a run of one."""
    train_with_addresses("training.max_steps=2")
    run = train_with_addresses("run.resume_from=latest")
    lines = (run.directory / "events.ndjson").read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"safety_finding"' not in line]
    (run.directory / "events.ndjson").write_text("".join(kept), "utf-8")
    layout = RunLayout(run.directory)
    failing = {check.key: check for check in verify_run(layout, allowed=["code"]).verification.failing()}
    assert "names findings {}" in str(failing["events.ndjson"].note)


def test_findings_are_on_the_disk_before_the_provenance_that_counts_them(train_with_addresses):
    """Findings, the sync of the events, provenance.json: a power failure leaves no count without its lines."""
    storage = DyingStorage()
    train_with_addresses(storage=storage)
    before = storage.order[: storage.order.index("provenance.json")]
    assert before.count("finding") == FINDINGS
    last_finding = len(before) - before[::-1].index("finding")
    assert "sync events.ndjson" in before[last_finding:]
