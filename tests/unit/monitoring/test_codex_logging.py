"""Tests of the NDJSON files: whole lines, rotation, redaction, torn tails, rewinding."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from codex_ml.errors import DiskSpaceError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.monitoring.codex_logging import (
    NdjsonWriter,
    ndjson_files,
    no_redaction,
    read_ndjson,
    truncate_after_step,
    write_ndjson,
)


def fixed_clock() -> datetime:
    """Return always the same moment."""
    return datetime(2026, 11, 3, 10, 11, 12, 345678, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a log may be written."""
    return tmp_path / "metrics.ndjson"


def steps_in(path: Path) -> list[int | None]:
    """Return the steps of all records, in the order in which they are read."""
    return [record.get("step") for record in read_ndjson(path)]


def test_write_plain_record_stamps_version_and_time_first(path: Path) -> None:
    """A line is one JSON object: schema_version, time, then the record's keys in their order."""
    with NdjsonWriter(path, redact=no_redaction, clock=fixed_clock) as writer:
        writer.write({"step": 1, "name": "loss", "value": 2.5})
    assert path.read_text("utf-8") == (
        '{"schema_version": 1, "time": "2026-11-03T10:11:12.345678Z", "step": 1, "name": "loss", "value": 2.5}\n'
    )


def test_write_file_is_private(path: Path) -> None:
    """The log can be read by its owner only."""
    write_ndjson(path, {"a": 1}, redact=no_redaction)
    assert path.stat().st_mode & 0o077 == 0


def test_write_max_bytes_passed_renames_to_next_number(path: Path) -> None:
    """Each file holds what fits, .1 is the oldest, and nothing is deleted."""
    with NdjsonWriter(path, 200, redact=no_redaction, clock=fixed_clock) as writer:
        for step in range(10):
            writer.write({"step": step})
    files = ndjson_files(path)
    assert [file.name for file in files] == [
        *(f"metrics.ndjson.{number}" for number in range(1, len(files))),
        "metrics.ndjson",
    ]
    assert len(files) > 3
    assert all(file.stat().st_size <= 200 for file in files)
    assert steps_in(path) == list(range(10))


def test_write_exactly_max_bytes_stays_in_one_file(path: Path) -> None:
    """The limit itself is allowed; one byte more rotates."""
    write_ndjson(path, {"step": 1}, redact=no_redaction, clock=fixed_clock)
    line_bytes = path.stat().st_size
    write_ndjson(path, {"step": 2}, redact=no_redaction, clock=fixed_clock, max_bytes=2 * line_bytes)
    assert len(ndjson_files(path)) == 1
    write_ndjson(path, {"step": 3}, redact=no_redaction, clock=fixed_clock, max_bytes=3 * line_bytes - 1)
    assert [file.name for file in ndjson_files(path)] == ["metrics.ndjson.1", "metrics.ndjson"]


def test_write_line_longer_than_max_bytes_is_kept_whole(path: Path) -> None:
    """A line is never cut: one that is too long gets a file of its own."""
    with NdjsonWriter(path, 10, redact=no_redaction) as writer:
        writer.write({"text": "x" * 500})
        writer.write({"text": "y"})
    assert [len(str(record["text"])) for record in read_ndjson(path)] == [500, 1]


def test_write_eleventh_rotation_sorts_by_number(path: Path) -> None:
    """File .10 comes after .9, and the next number is one above the highest."""
    with NdjsonWriter(path, 1, redact=no_redaction) as writer:
        for step in range(13):
            writer.write({"step": step})
    assert ndjson_files(path)[-2].name == "metrics.ndjson.12"
    assert steps_in(path) == list(range(13))


def test_ndjson_files_foreign_names_are_left_alone(path: Path) -> None:
    """Only plain numbers count as rotated files."""
    for name in ("metrics.ndjson.01", "metrics.ndjson.bak", "metrics.ndjson.²", "metrics.ndjson.1.gz", "x.ndjson.1"):
        (path.parent / name).write_text("not json\n")
    with NdjsonWriter(path, 1, redact=no_redaction) as writer:
        writer.write({"step": 1})
        writer.write({"step": 2})
    assert [file.name for file in ndjson_files(path)] == ["metrics.ndjson.1", "metrics.ndjson"]


def test_open_torn_last_line_is_cut_before_appending(path: Path) -> None:
    """A line that a kill cut is removed, so the next line does not grow out of it."""
    write_ndjson(path, {"step": 1}, redact=no_redaction)
    with path.open("ab") as handle:
        handle.write(b'{"step": 2, "text": "' + b"x" * 200_000)
    assert steps_in(path) == [1]
    write_ndjson(path, {"step": 3}, redact=no_redaction)
    assert steps_in(path) == [1, 3]
    assert b"xxx" not in path.read_bytes()


def test_open_only_torn_line_starts_empty(path: Path) -> None:
    """A file that holds nothing but the beginning of a line is emptied."""
    path.write_bytes(b'{"step"')
    write_ndjson(path, {"step": 1}, redact=no_redaction)
    assert steps_in(path) == [1]


def test_write_killed_process_leaves_whole_lines_that_can_be_continued(path: Path) -> None:
    """Killed at any instant without a close, every line handed over is there once, and writing goes on."""
    program = (
        "import itertools, sys; from pathlib import Path;"
        "from codex_ml.monitoring.codex_logging import NdjsonWriter, no_redaction\n"
        "writer = NdjsonWriter(Path(sys.argv[1]), 500, redact=no_redaction)\n"
        "for step in itertools.count():\n"
        "    writer.write({'step': step})\n"
        "    print(step, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        confirmed = 0
        while confirmed < 40:
            confirmed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    with NdjsonWriter(path, 500, redact=no_redaction) as writer:
        writer.write({"step": -1})
    steps = steps_in(path)
    assert steps[:-1] == list(range(len(steps) - 1))
    assert len(steps) > 40
    assert steps[-1] == -1


def test_open_second_writer_is_refused(path: Path) -> None:
    """Two writers would rotate each other's lines away, so the second gets an error that says so."""
    with NdjsonWriter(path, redact=no_redaction), pytest.raises(UserError, match="another writer"):
        NdjsonWriter(path, redact=no_redaction)
    write_ndjson(path, {"step": 1}, redact=no_redaction)
    assert steps_in(path) == [1]


def test_write_closed_writer_is_an_error(path: Path) -> None:
    """Nothing is lost in silence after the end; closing twice does no harm."""
    writer = NdjsonWriter(path, redact=no_redaction)
    writer.close()
    writer.close()
    writer.sync()
    with pytest.raises(ValueError, match="closed"):
        writer.write({"a": 1})


def test_open_max_bytes_zero_is_refused(path: Path) -> None:
    """A limit below one byte means nothing."""
    with pytest.raises(ValueError, match="max_bytes"):
        NdjsonWriter(path, 0, redact=no_redaction)


@pytest.mark.safety
def test_write_nested_secret_passes_redact_first(path: Path) -> None:
    """What redact returns is written, nested values included; the caller's record stays as it was."""

    def redact(value):
        if isinstance(value, dict):
            return {key: redact(item) for key, item in value.items()}
        if isinstance(value, list):
            return [redact(item) for item in value]
        return value.replace("hunter2", "***") if isinstance(value, str) else value

    record = {"messages": [{"content": "my word is hunter2"}], "where": Path("hunter2/x")}
    write_ndjson(path, record, redact=redact)
    assert b"hunter2" not in path.read_bytes()
    assert next(read_ndjson(path))["messages"] == [{"content": "my word is ***"}]
    assert record == {"messages": [{"content": "my word is hunter2"}], "where": Path("hunter2/x")}


@pytest.mark.safety
def test_write_redact_that_changes_its_argument_leaves_the_callers_record(path: Path) -> None:
    """The filter gets a copy: one that works in place cannot reach the caller's record."""
    record = {"inner": {"text": "secret"}}

    def redact(value):
        value["inner"]["text"] = "***"
        return value

    write_ndjson(path, record, redact=redact)
    assert record == {"inner": {"text": "secret"}}
    assert next(read_ndjson(path))["inner"] == {"text": "***"}


@pytest.mark.safety
def test_write_redact_raises_writes_nothing(path: Path) -> None:
    """A filter that fails closes the way: no line is written."""

    def broken(_value):
        raise RuntimeError("filter down")

    with pytest.raises(RuntimeError, match="filter down"):
        write_ndjson(path, {"text": "secret"}, redact=broken)
    assert path.read_bytes() == b""


def test_write_redact_returns_no_record_is_refused(path: Path) -> None:
    """A redact that returns something else than a record is a fault of the caller."""
    with pytest.raises(TypeError, match="redact"):
        write_ndjson(path, {"a": 1}, redact=lambda value: str(value))


def test_write_non_finite_values_become_null_and_are_named(path: Path) -> None:
    """NaN and infinities never make invalid JSON; which they were is kept."""
    record = {"loss": float("nan"), "inner": {"list": [1.0, float("inf")]}, "low": np.float32("-inf")}
    write_ndjson(path, record, redact=no_redaction)
    written = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"not JSON: {name}"))
    assert written["loss"] is None
    assert written["inner"] == {"list": [1.0, None]}
    assert written["non_finite"] == {"loss": "nan", "inner.list.1": "inf", "low": "-inf"}


@pytest.mark.parametrize("key", ["schema_version", "time", "non_finite"])
def test_write_reserved_key_is_refused(path: Path, key: str) -> None:
    """A record cannot hide what the writer stamps."""
    with pytest.raises(ValueError, match=key):
        write_ndjson(path, {key: 1}, redact=no_redaction)


def test_write_strange_text_is_read_back_unchanged(path: Path) -> None:
    """Line separators inside a value do not end a line, and a lone surrogate does not stop the log."""
    texts = ["a\u2028b\x85c\nd", "é 漢字 🙂", os.fsdecode(b"caf\xe9"), "\x00\x1f\x7f"]
    with NdjsonWriter(path, redact=no_redaction) as writer:
        for text in texts:
            writer.write({"text": text})
    assert [record["text"] for record in read_ndjson(path)] == texts
    assert "漢字".encode() in path.read_bytes()


def test_write_disk_full_cuts_back_to_whole_lines(path: Path) -> None:
    """A line that finds no room is taken back whole, the error says what to do, and writing can go on later."""
    with NdjsonWriter(path, redact=no_redaction) as writer:
        writer.write({"step": 1})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            for _ in range(2):  # the first write is cut by the kernel, the second would be too
                with pytest.raises(DiskSpaceError, match=r"metrics\.ndjson"):
                    writer.write({"step": 2, "text": "x" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes().count(b"\n") == 1
        assert path.read_bytes().endswith(b"\n")
        writer.write({"step": 3})
    assert steps_in(path) == [1, 3]


def test_read_ndjson_missing_file_yields_nothing(path: Path) -> None:
    """No file, no records."""
    assert list(read_ndjson(path)) == []


@pytest.mark.parametrize("line", [b"{broken}\n", b"[1]\n", b"\xff\n"])
def test_read_ndjson_damaged_line_names_file_and_line(path: Path, line: bytes) -> None:
    """A whole line that is no JSON object is damage, not a torn tail."""
    write_ndjson(path, {"a": 1}, redact=no_redaction)
    with path.open("ab") as handle:
        handle.write(line)
    with pytest.raises(UserError, match=r"metrics\.ndjson:2"):
        list(read_ndjson(path))


def test_truncate_after_step_removes_later_steps_over_all_files(path: Path) -> None:
    """Only lines of later steps go; lines without a step stay, and files left empty disappear."""
    with NdjsonWriter(path, 200, redact=no_redaction, clock=fixed_clock) as writer:
        for step in range(1, 11):
            writer.write({"step": step})
        writer.write({"kind": "note"})
    assert truncate_after_step(path, 3) == 7
    assert steps_in(path) == [1, 2, 3, None]
    assert all(file.stat().st_size for file in ndjson_files(path) if file != path)
    assert truncate_after_step(path, 3) == 0


def test_truncate_after_step_nothing_to_remove_writes_nothing(path: Path) -> None:
    """Files that stay as they are are not written again."""
    write_ndjson(path, {"step": 3}, redact=no_redaction)

    class Refusing(Storage):
        def write_atomic(self, path: Path, data: bytes) -> None:
            raise AssertionError(f"{path} had not to be written, with {len(data)} bytes")

    assert truncate_after_step(path, 3, storage=Refusing()) == 0


def test_truncate_after_step_stopped_halfway_is_finished_by_the_next_call(path: Path) -> None:
    """When a rewrite fails, old content is still whole, and the same call completes the work."""
    with NdjsonWriter(path, 200, redact=no_redaction, clock=fixed_clock) as writer:
        for step in range(1, 11):
            writer.write({"step": step})

    class FailsAfterOne(Storage):
        calls = 0

        def write_atomic(self, path: Path, data: bytes) -> None:
            self.calls += 1
            if self.calls > 1:
                raise OSError("no")
            super().write_atomic(path, data)

    with pytest.raises(OSError, match="no"):
        truncate_after_step(path, 1, storage=FailsAfterOne())
    assert steps_in(path)[:2] == [1, 2]
    truncate_after_step(path, 1)
    assert steps_in(path) == [1]


def test_truncate_after_step_open_writer_goes_on_in_the_shortened_file(path: Path) -> None:
    """The writer's own method closes, cuts and opens again; new lines follow the kept ones."""
    with NdjsonWriter(path, 200, redact=no_redaction) as writer:
        for step in range(1, 8):
            writer.write({"step": step})
        assert writer.truncate_after_step(4) == 3
        writer.write({"step": 5})
    assert steps_in(path) == [1, 2, 3, 4, 5]


def test_truncate_after_step_process_forked_meanwhile_does_not_keep_the_lock(path: Path) -> None:
    """Another thread may start a process at any moment, and until it runs its program it holds the same open file."""
    reader, writing = os.pipe()
    with NdjsonWriter(path, redact=no_redaction) as writer:
        writer.write({"step": 1})
        process_id = os.fork()
        if process_id == 0:
            os.close(writing)
            os.read(reader, 1)
            os._exit(0)
        try:
            assert writer.truncate_after_step(1) == 0
            writer.write({"step": 2})
        finally:
            os.close(writing)
            os.close(reader)
            os.waitpid(process_id, 0)
    assert steps_in(path) == [1, 2]
