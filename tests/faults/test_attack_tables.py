"""Forged Parquet and Arrow files: bombs, library crashes and damage give one error within a memory limit."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from codex_ml.data.readers.jsonl import MAX_LINE_BYTES
from codex_ml.data.readers.registry import open_records
from codex_ml.data.readers.table_child import processor_allowance
from codex_ml.data.readers.tables import TableFile
from codex_ml.errors import EXIT_USER_ERROR, DataError

pytestmark = pytest.mark.timeout(600)
ROWS = pa.table({"text": [f"text {number}" for number in range(500)], "tags": [["a", "b"]] * 500})
_SEND_GARBAGE = "import os; os.write(1, b'x' * 100)"
_RECORD_LIMIT = """
import pathlib, resource, sys
from codex_ml.data.readers import table_child
table_child._main(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrlimit(resource.RLIMIT_CPU)[0]))
"""
_SEND_HUGE = "import os, struct; os.write(1, struct.pack('<cQ', b'r', 1 << 60))"
# Each mutation runs in a fork of a process that has imported the library, which is fast and isolates crashes.
_MUTATE = """
import io, json, os, random, resource, signal, sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from codex_ml.data.readers.table_child import DONE, ERROR, FRAME, serve

content, copy = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
counts = {"read": 0, "refused": 0, "crashed": 0, "escaped": 0}
for seed in range(300):
    chance = random.Random(seed)
    mutated = bytearray(content)
    low = len(content) - 600 if seed % 2 else 8
    for _ in range(chance.randint(1, 6)):
        mutated[chance.randrange(max(8, low), len(content))] = chance.choice([0, 255, 127, 128, chance.randrange(256)])
    copy.write_bytes(mutated)
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        answers = io.BytesIO()
        code = 3
        try:
            with copy.open("rb") as file:
                serve(file, 1 << 20, answers)
            answers.seek(0)
            while head := answers.read(FRAME.size):
                kind, length = FRAME.unpack(head)
                answers.seek(length, 1)
            code = {DONE: 0, ERROR: 2}[kind]
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    counts["crashed" if status < 0 else {0: "read", 2: "refused", 3: "escaped"}[status]] += 1
print(json.dumps(counts))
"""


def _stream(table: pa.Table, path: Path, compression: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)


def _refusal(path: Path, command: tuple[str, ...] | None = None) -> str:
    file = TableFile(path, MAX_LINE_BYTES) if command is None else TableFile(path, MAX_LINE_BYTES, command)
    with pytest.raises(DataError) as caught:
        list(file.raw_lines())
    assert caught.value.exit_code == EXIT_USER_ERROR
    assert path.name in caught.value.what
    return caught.value.block()


def _rows_or_refusal(path: Path) -> list[object]:
    """Return the rows of a file, or the error that names the file."""
    try:
        return list(open_records(path).raw_lines())
    except DataError as error:
        return [error] if path.name in error.what else []


def test_parquet_cell_of_a_hundred_megabytes_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    """The file itself has only a few kilobytes."""
    path = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["x" * 100_000_000]}), path, compression="zstd")
    assert "bomb.parquet holds far more than it should" in _refusal(path)


def test_parquet_text_that_many_rows_share_is_refused_by_the_bytes_of_its_rows(tmp_path: Path) -> None:
    """A dictionary stores the text once, so neither the footer nor the file tells how much the rows hold."""
    path = tmp_path / "shared.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["x" * 1_000_000] * 40}), path, compression="zstd")
    assert path.stat().st_size < 2000
    assert "shared.parquet holds far more than it should" in _refusal(path)


def test_arrow_buffer_that_claims_eight_gigabytes_ends_at_the_memory_limit(tmp_path: Path) -> None:
    """The library allocates the declared length of a compressed buffer before it detects the false value."""
    path = tmp_path / "bomb.arrow"
    _stream(pa.table({"text": ["x" * 1_234_567]}), path, "zstd")
    # The last occurrence: the text buffer follows the buffer of offsets.
    before, length, after = path.read_bytes().rpartition(struct.pack("<q", 1_234_567))
    assert length
    path.write_bytes(before + struct.pack("<q", 8 << 30) + after)
    block = _refusal(path)
    assert "bomb.arrow: the rows after row 0 need more memory than is allowed" in block
    assert "fix:" in block


@pytest.mark.parametrize(("ending", "depth"), [("parquet", 200), ("arrow", 60)])
def test_table_of_lists_within_lists_is_read_or_refused(ending: str, depth: int, tmp_path: Path) -> None:
    """The depth is the greatest that the library can write."""
    column = pa.array(["x"])
    for _ in range(depth):
        column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    path = tmp_path / f"deep.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pa.table({"text": column}), path)
    else:
        _stream(pa.table({"text": column}), path)
    assert len(_rows_or_refusal(path)) == 1


def test_parquet_with_twenty_thousand_row_groups_keeps_every_row_in_order(tmp_path: Path) -> None:
    """Each group has one row; the footer is parsed once, not once per group."""
    path = tmp_path / "groups.parquet"
    table = pa.table({"n": range(20_000)})
    pyarrow.parquet.write_table(table, path, row_group_size=1)
    lines = [raw for _, _, raw, _ in open_records(path).raw_lines()]
    assert lines == [b'{"n":%d}' % number for number in range(20_000)]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_table_with_a_schema_of_sixty_megabytes_is_read_or_refused(ending: str, tmp_path: Path) -> None:
    """The size comes from metadata of the writer, which the reader does not need."""
    path = tmp_path / f"schema.{ending}"
    table = ROWS.replace_schema_metadata({b"note": b"y" * (60 << 20)})
    if ending == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        _stream(table, path)
    assert len(_rows_or_refusal(path)) in {1, ROWS.num_rows}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("raise SystemExit(7)", "exit code 7"),
        (_SEND_GARBAGE, "sent something that is no row"),
        (_SEND_HUGE, "sent something that is no row"),
    ],
)
def test_child_that_crashes_or_sends_garbage_is_one_error(code: str, words: str, tmp_path: Path) -> None:
    """A forged file can crash the decoding process or make it send invalid frames."""
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(ROWS, path)
    block = _refusal(path, (sys.executable, "-c", code))
    assert "data.parquet: the table cannot be read beyond row 0" in block
    assert words in block


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_three_hundred_mutations_of_a_good_file_are_read_or_refused(ending: str, tmp_path: Path) -> None:
    """Bytes changed in the footer and elsewhere: no exception escapes, and every call ends."""
    path, copy = tmp_path / f"good.{ending}", tmp_path / f"copy.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(ROWS.slice(0, 50), path)
    else:
        _stream(ROWS.slice(0, 50), path)
    done = subprocess.run(
        [sys.executable, "-c", _MUTATE, str(path), str(copy)], check=True, capture_output=True, text=True, timeout=550
    )
    counts = json.loads(done.stdout)
    assert sum(counts.values()) == 300
    assert counts["escaped"] == 0
    assert counts["refused"] > 50
    # Read the last mutation through the child process of the toolkit: rows or one error.
    assert _rows_or_refusal(copy)


def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A child that blocks while it writes rows ends when its standard input is closed."""
    path = tmp_path / "long.parquet"
    pyarrow.parquet.write_table(pa.table({"text": [f"{number:01000d}" for number in range(2000)]}), path)
    with path.open("rb") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "codex_ml.data.readers.table_child", str(file.fileno()), str(MAX_LINE_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[file.fileno()],
        )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.read(1) == b"r"
        child.stdin.close()
        assert child.wait(60) == 1
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def test_reading_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    """Closing the iterator before the last row ends the child."""
    path = tmp_path / "long.parquet"
    pyarrow.parquet.write_table(pa.table({"text": [f"{number:01000d}" for number in range(2000)]}), path)
    before = _children()
    lines = open_records(path).raw_lines()
    next(lines)
    assert _children() != before
    close: Callable[[], None] = lines.close  # type: ignore[attr-defined]
    close()
    assert _children() == before


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def test_child_processor_time_is_limited_by_the_size_of_the_file(tmp_path: Path) -> None:
    """The limit is 60 seconds plus one second per mebibyte; exceeding it gives one error that names the limit."""
    path, limit = tmp_path / "data.parquet", tmp_path / "limit"
    pyarrow.parquet.write_table(ROWS, path)
    with path.open("rb") as file:
        arguments = [str(limit), str(file.fileno()), "1000"]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _RECORD_LIMIT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[file.fileno()],
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.read()
            # It exits when its standard input is closed.
            assert process.wait(120) == 0
    assert (limit.read_text(), processor_allowance(100 << 20)) == ("60", 160)
    block = _refusal(path, (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)"))
    assert "the rows after row 0 take more processor time than is allowed" in block
    assert "60 seconds are allowed" in block
