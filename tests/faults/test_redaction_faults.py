"""`codex-ml data redact` under faults: killed, interrupted, a full disk, a source that changes, rules that break down.

Output and report are whole or absent in every case, and the source is what it was.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from codex_ml.errors import CodexError, DataError, DiskSpaceError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.data.redact import RedactionOptions, redact_file
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.matching import PolicyMatcher, RuleFailedError, RuleMatch
from codex_ml.safety.policy import Policy, parse_policy

pytestmark = pytest.mark.safety

WORD = "FORBIDDEN"
ROW = b'{"text": "a ' + WORD.encode() + b' word"}\n'
MARKED = ROW.replace(WORD.encode(), b"[REDACTED:word]")


@pytest.fixture
def policy() -> Policy:
    """Return a policy of one rule."""
    rule = f"{{id: word, kind: regex, description: d, patterns: [{WORD}]}}"
    return parse_policy(f"version: 1\nrules:\n  - {rule}\n", "own")


def _redact(source: Path, filters: SafetyFilters, storage: Storage | None = None):
    directory = source.parent
    return redact_file(
        source,
        directory / "out" / "y.jsonl",
        directory / "out" / "r.json",
        RedactionOptions(),
        filters=filters,
        storage=storage,
    )


def _large_file(directory: Path) -> Path:
    source = directory / "x.jsonl"
    line = json.dumps({"text": "word " * 150 + "somebody@corp-mail.org"}).encode() + b"\n"
    with source.open("wb") as handle:
        for _ in range(30):
            handle.write(line * 4000)
    return source


def _start(command_line, directory: Path) -> subprocess.Popen[str]:
    """Start a redaction of a large file and return the process when it has written some of it."""
    _large_file(directory)
    names = ("--input", "x.jsonl", "--output", "new/y.jsonl", "--report", "new/r.json")
    process = command_line.start("data", "redact", *names, directory=directory)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if any(file.stat().st_size for file in directory.glob("new/.y.jsonl.*.partial/made")):
            return process
        time.sleep(0.01)
    raise AssertionError(f"nothing was written: {process.communicate()}")


@pytest.mark.slow
def test_redaction_killed_midway_leaves_no_output_and_runs_again(command_line, tmp_path: Path) -> None:
    """Nothing under either name; the next call makes both whole and clears up what the dead process left."""
    process = _start(command_line, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list((tmp_path / "new").iterdir())
    assert all(item.name.startswith(".") and item.name.endswith(".partial") for item in left)
    names = ("--input", "x.jsonl", "--output", "new/y.jsonl", "--report", "new/r.json")
    answer = command_line.run("data", "redact", *names, directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert {item.name for item in (tmp_path / "new").iterdir()} == {"y.jsonl", "r.json"}
    assert (tmp_path / "new" / "y.jsonl").read_bytes().count(b"[REDACTED:email]") == 120_000
    rows = json.loads((tmp_path / "new" / "r.json").read_bytes())["rows"]
    assert rows == {"read": 120_000, "kept": 120_000, "changed": 120_000, "dropped": 0}


@pytest.mark.slow
def test_redaction_interrupted_leaves_nothing(command_line, tmp_path: Path) -> None:
    """Ctrl-C: one block, exit code 130, and not even the directory that was made for it."""
    process = _start(command_line, tmp_path)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.count("error:") == 1
    assert "Traceback" not in stderr
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]


def _run_on(disk, command_line, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*disk.prefix, *command_line.command("data", "redact", *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=disk.inside.parent)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False], ids=["while-it-is-written", "before-it-begins"])
def test_redaction_disk_too_small_for_the_output_leaves_nothing(
    small_disk, command_line, tmp_path: Path, packed: bool
) -> None:
    """Of an archive nobody knows how much comes out, so the disk fills up; a plain file is refused at once."""
    content = b"".join(b'{"text": "%0800d"}\n' % number for number in range(12_000))
    source = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    source.write_bytes(gzip.compress(content) if packed else content)
    report = tmp_path / "r.json"
    named = ("--output", str(small_disk.inside / "y.jsonl"), "--report", str(report))
    answer = _run_on(small_disk, command_line, "--input", str(source), *named)
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert ("the disk is full" if packed else "the disk is too small") in answer.stderr
    assert "resume" not in answer.stderr
    assert list(small_disk.dependencies.iterdir()) == []
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(["disk", source.name])


@pytest.mark.slow
def test_redaction_disk_too_small_for_the_report_leaves_no_output(small_disk, command_line, tmp_path: Path) -> None:
    """A report that cannot be written takes the output with it: nobody has the one without the other."""
    source = tmp_path / "x.jsonl"
    source.write_bytes(b'{"text": "a@corp-mail.org"}\n')
    small_disk.fill()
    report = small_disk.inside / "r.json"
    answer = _run_on(small_disk, command_line, "--input", str(source), "--output", "y.jsonl", "--report", str(report))
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr
    assert [item.name for item in small_disk.dependencies.iterdir()] == ["filler"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["disk", "x.jsonl"]


class _FailingStorage(Storage):
    """Does everything for real until the call of a number, which fails; clearing up still works.

    Parameters
    ----------
    failing_call : int
        Counted from 0.
    number : int
        Of the error.
    """

    def __init__(self, failing_call: int, number: int) -> None:
        self._calls_left = failing_call
        self._number = number

    def _count(self) -> None:
        self._calls_left -= 1
        if self._calls_left == -1:
            raise OSError(self._number, os.strerror(self._number))

    @property
    def has_failed(self) -> bool:
        """Whether the call came."""
        return self._calls_left < 0

    def open_file(self, path: Path, flags: int) -> int:
        """Open, or fail."""
        self._count()
        return super().open_file(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write half of it, or fail: the system may take less than it is given."""
        self._count()
        return super().write(descriptor, data[: (len(data) + 1) // 2])

    def fsync(self, descriptor: int) -> None:
        """Force to the disk, or fail."""
        self._count()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename, or fail."""
        self._count()
        super().replace(source, target)

    def make_one_directory(self, path: Path) -> None:
        """Make a directory, or fail."""
        self._count()
        super().make_one_directory(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_redaction_storage_fails_anywhere_files_are_whole_or_absent(
    number: int, policy: Policy, tmp_path: Path
) -> None:
    """Whichever call fails: no half file, no output without its report, and no content left beside them."""
    filters = SafetyFilters(policy)
    outcomes = set()
    for call in range(400):
        directory = tmp_path / str(call)
        directory.mkdir()
        source = directory / "x.jsonl"
        source.write_bytes(ROW * 10)
        storage = _FailingStorage(call, number)
        # A full disk is said in the toolkit's own words.
        with suppress(*((DiskSpaceError,) if number == errno.ENOSPC else (OSError, CodexError))):
            _redact(source, filters, storage)
        made = directory / "out"
        # A directory whose making failed halfway is left empty, and cleared up by a later call.
        left = made.iterdir() if made.is_dir() else ()
        names = sorted(item.name for item in left if item.is_file() or any(item.iterdir()))
        assert set(names) <= {"r.json", "y.jsonl"}, call
        if "y.jsonl" in names:
            assert (made / "y.jsonl").read_bytes() == MARKED * 10
            assert "r.json" in names, call
        if "r.json" in names:
            assert json.loads((made / "r.json").read_bytes())["rows"]["changed"] == 10
        assert source.read_bytes() == ROW * 10
        outcomes.add(tuple(names))
        if not storage.has_failed:
            break
    else:
        raise AssertionError("there are more calls than the test tries")
    assert {(), ("r.json", "y.jsonl")} <= outcomes


def _grow(source: Path) -> None:
    with source.open("ab") as handle:
        handle.write(ROW)


def _rewrite(source: Path) -> None:
    source.write_bytes(ROW * 3)


def _replace(source: Path) -> None:
    other = source.with_name("other")
    other.write_bytes(source.read_bytes())
    os.replace(other, source)


@pytest.mark.parametrize("change", [_grow, _rewrite, _replace])
def test_redaction_source_changes_meanwhile_is_refused(
    change: Callable[[Path], None], policy: Policy, tmp_path: Path
) -> None:
    """Whoever writes to the source or puts another in its place: its digest would be that of no file."""
    source = tmp_path / "x.jsonl"
    source.write_bytes(ROW * 3 + b'{"text": "%s"}\n' % (b"x" * 2_000_000))
    matcher, changed = PolicyMatcher(policy.rules), []

    def find(text: str) -> list[RuleMatch]:
        if not changed:
            changed.append(True)
            change(source)
        return matcher.find(text)

    with pytest.raises(DataError, match="changed while it was"):
        _redact(source, SafetyFilters(policy, find=find))
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("has_a_name", [True, False], ids=["rule", "engine"])
def test_redaction_rule_breaks_down_blocks_the_row_by_line(has_a_name: bool, policy: Policy, tmp_path: Path) -> None:
    """Nothing is known of that row, so nothing is written; the message has line and rule, and nothing of the text."""
    source = tmp_path / "x.jsonl"
    source.write_bytes(b'{"text": "fine"}\n{"text": "PRIVATE THING"}\n')

    def find(text: str) -> list[RuleMatch]:
        if text != "PRIVATE THING":
            return []
        raise RuleFailedError(policy.rules[0]) if has_a_name else ZeroDivisionError(text)

    with pytest.raises(DataError) as caught:
        _redact(source, SafetyFilters(policy, find=find))
    assert caught.value.exit_code == 2
    assert caught.value.what.startswith("x.jsonl:2: ")
    assert ("word" if has_a_name else "filter_failure") in caught.value.what
    assert "PRIVATE" not in caught.value.block()
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]


def test_redaction_block_and_faulty_lines_are_named_together_and_write_nothing(tmp_path: Path) -> None:
    """Every refused line is counted, drops among them change nothing about that, and no file appears."""
    text = (
        "version: 1\nrules:\n"
        "  - {id: gone, kind: phrase, description: d, phrases: [drop me], action: drop}\n"
        "  - {id: never, kind: phrase, description: d, phrases: [block me], action: block}\n"
    )
    source = tmp_path / "x.jsonl"
    rows = [b'{"a": "drop me"}', b'{"a": {"b": ["x", {"block me": 1}]}}', b"no json", b'{"a": "block me, drop me"}']
    source.write_bytes(b"\n".join(rows))
    with pytest.raises(DataError, match=r"^x\.jsonl:2: .*never") as caught:
        _redact(source, SafetyFilters(parse_policy(text, "own")))
    assert "x.jsonl:3: not valid JSON" in caught.value.block()
    assert "x.jsonl:4: " in caught.value.block()
    assert "x.jsonl:1" not in caught.value.block()
    assert [item.name for item in tmp_path.iterdir()] == ["x.jsonl"]
