"""The second process that checks lines: the same answers, and nothing lost when it goes."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codex_ml.data.problems import LineFault
from codex_ml.data.readers.jsonl import JsonlFile, RawLine
from codex_ml.data.splits.check_helper import SLOT_BYTES, SLOT_COUNT, CheckHelper, checked_lines, read_exactly, serve
from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.data.splits.line_checks import LineCheck
from codex_ml.errors import DataError

LINES = [b'{"prompt": "a", "n": 1}', b"nonsense", b'{"prompt": "b", "prompt": "c"}', b'{"n": "\xc3\xa9"}']


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file of several batches, with lines of all lengths, one of them longer than a slot."""
    path = tmp_path / "large.jsonl"
    rows = [{"prompt": f"p{number % 500}", "completion": "word " * (number % 300)} for number in range(9000)]
    rows[4000]["completion"] = "x" * (SLOT_BYTES + 1)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_serve_answers_what_the_check_says() -> None:
    """Slots in any order; the end of the questions is the end of the service."""
    check = LineCheck(3, "prompt", {})
    answers = io.BytesIO()
    with mmap.mmap(-1, SLOT_COUNT * SLOT_BYTES) as memory:
        joined = b"\n".join(LINES)
        memory[SLOT_BYTES : SLOT_BYTES + len(joined)] = joined
        serve(memory, check, io.BytesIO((1).to_bytes(8, "little") + len(joined).to_bytes(8, "little")), answers)
    expected = check(LINES)
    answers.seek(24)
    assert answers.read(len(expected.groups) * 8) == expected.groups.tobytes()
    assert answers.read(len(expected.records) * 8) == expected.records.tobytes()
    faults = json.loads(answers.read())
    assert [(index, LineFault(*fault)) for index, fault in faults] == expected.faults


def test_read_exactly_pipe_that_ends_early_is_noticed() -> None:
    """Half an answer is none."""
    assert read_exactly(io.BytesIO(b"abc"), 3) == b"abc"
    with pytest.raises(EOFError):
        read_exactly(io.BytesIO(b"abc"), 4)


@pytest.mark.slow
def test_check_helper_answers_equal_the_check_here(tmp_path: Path) -> None:
    """Hashes and faults, in the order of the questions; a third question waits until there is room."""
    check = LineCheck(3, "prompt", {})
    with CheckHelper(tmp_path, 3, "prompt", {}) as helper:
        assert helper.ask(LINES)
        assert helper.ask(LINES[:1])
        assert not helper.ask(LINES)
        first, _ = helper._asked
        assert helper.answer() == check(LINES)
        # The room of the other question is not free: its lines may not have been read yet.
        assert helper._free == [first]
        assert helper.answer() == check(LINES[:1])
        assert not helper.ask([b"x" * (SLOT_BYTES + 1)])
        assert helper.ask(LINES)
        assert helper.answer() == check(LINES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("group_by", [None, "prompt"])
def test_split_file_with_and_without_helper_gives_the_same_bytes(
    large: Path, tmp_path: Path, group_by: str | None
) -> None:
    """Who checked a line is nowhere to be seen."""
    options = SplitOptions((0.8, 0.2), ("a", "b"), 7, group_by)
    split_file(large, tmp_path / "with", options, helper_from_bytes=0)
    split_file(large, tmp_path / "without", options, helper_from_bytes=1 << 60)
    for name in ("a.jsonl", "b.jsonl", "split.json"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


@pytest.mark.slow
def test_split_file_with_helper_names_faults_in_order(large: Path, tmp_path: Path) -> None:
    """Line numbers are those of the file, whoever found the fault."""
    lines = large.read_bytes().split(b"\n")
    for number in (10, 2500, 4001, 8999):
        lines[number - 1] = b"nonsense"
    large.write_bytes(b"\n".join(lines))
    blocks = []
    for from_bytes in (0, 1 << 60):
        with pytest.raises(DataError) as caught:
            split_file(large, tmp_path / "out", SplitOptions((0.8, 0.2), ("a", "b")), helper_from_bytes=from_bytes)
        blocks.append(caught.value.block())
    assert blocks[0] == blocks[1]
    places = [blocks[0].index(f"large.jsonl:{number}") for number in (10, 2500, 4001, 8999)]
    assert places == sorted(places)


class _KilledMeanwhile(JsonlFile):
    """A file in whose middle the helper is killed."""

    def __init__(self, path: Path, helper: CheckHelper) -> None:
        super().__init__(path)
        self._helper = helper

    def raw_lines(self) -> Iterator[RawLine]:
        for line in super().raw_lines():
            if line[0] == 5000:
                os.kill(self._helper._process.pid, signal.SIGKILL)
                time.sleep(0.2)
            yield line


@pytest.mark.slow
def test_checked_lines_helper_that_dies_loses_nothing(large: Path, tmp_path: Path) -> None:
    """What it had been asked is checked again; the rest is checked here."""
    check = LineCheck(1, None, {})
    expected = [list(checked.groups) for _, checked in checked_lines(JsonlFile(large), check, None)]
    with CheckHelper(tmp_path, 1, None, {}) as helper:
        found = [list(checked.groups) for _, checked in checked_lines(_KilledMeanwhile(large, helper), check, helper)]
    assert found == expected


def test_answer_of_a_helper_that_was_given_up_is_none_even_if_one_lies_ready(tmp_path: Path) -> None:
    """It died between an answer and the next question, so what its pipe still holds must not be taken for the next."""
    line = b'{"text": "a"}'
    with CheckHelper(tmp_path, 1, None, {}) as helper:
        assert helper.ask([line])
        while not helper.has_answer:
            time.sleep(0.01)
        helper._process.kill()
        helper._process.wait()
        assert not helper.ask([line])
        assert helper.has_answer
        assert helper.answer() is None


@pytest.mark.slow
def test_check_helper_module_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """A data directory that is the working directory may contain a file with the name of a module."""
    (tmp_path / "mmap.py").write_text("from pathlib import Path\nPath('planted').touch()\n")
    with contextlib.chdir(tmp_path), CheckHelper(tmp_path, 3, "prompt", {}) as helper:
        assert helper.ask(LINES)
        assert helper.answer() == LineCheck(3, "prompt", {})(LINES)
    assert not (tmp_path / "planted").exists()
