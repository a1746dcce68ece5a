"""Closed or full standard streams, and names with control characters: exit codes are right, output is escaped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.io.atomic import Storage
from codex_ml.runs.layout import close_record, create_run

pytestmark = pytest.mark.slow

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PROGRAM = (sys.executable, "-m", "codex_ml.cli.main")
# Each prints results; none needs a file that another creates, so they run in parallel.
SHOWING = (
    ("--version",),
    ("--help",),
    ("train", "--help"),
    ("configs", "list"),
    ("configs", "show", "examples/minimal"),
    ("runs", "list"),
    ("runs", "list", "--json"),
    ("runs", "show", "latest"),
    ("runs", "rm", "latest", "--dry-run"),
    ("safety", "list"),
    ("safety", "test", "clean.txt", "--redacted"),
    ("validate", "--config-name", "examples/minimal"),
    ("data", "validate", "records.jsonl"),
    ("data", "stats", "records.jsonl", "--json"),
    ("data", "split", "records.jsonl", "--out", "parts"),
    ("data", "redact", "--input", "records.jsonl", "--output", "redacted.jsonl"),
    ("data", "manifest", "records.jsonl"),
    ("data", "prepare", "--list"),
)
# These print to the error stream only.
QUIET = (("data", "cache", "list"), ("runs", "list", "--name", "nothing"))
WRONG = (("runs", "show", "nothing"), ("runs", "list", "--nothing"), ("data", "validate", "nothing.jsonl"))


@pytest.fixture
def place(tmp_path: Path, small_records: Path) -> Path:
    """Return a directory with a run, records and a text."""
    close_record(*create_run(tmp_path / "runs", "a", STARTED, Storage()), "FINISHED", STARTED, Storage())
    (tmp_path / "runs" / ".token-cache").mkdir()
    (tmp_path / "records.jsonl").write_bytes(small_records.read_bytes())
    (tmp_path / "clean.txt").write_text("nothing to find\n", encoding="utf-8")
    return tmp_path


def run_all(
    commands: Sequence[Sequence[str]], redirections: str, directory: Path
) -> dict[tuple[str, ...], tuple[int, str]]:
    """Run commands in parallel in a shell with redirections, and return the exit code and the output of each."""
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *PROGRAM]
    started = {
        tuple(command): subprocess.Popen(
            [*shell, *command], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    }
    ended = {}
    for command, process in started.items():
        said, _ = process.communicate(timeout=300)
        ended[command] = (process.returncode, said)
    return ended


@pytest.mark.parametrize(
    "redirections",
    ["<&- >&- 2>&-", *(pytest.param(one, marks=pytest.mark.full("faults")) for one in (">&-", "2>&-"))],
)
def test_standard_streams_closed_do_not_change_the_exit_code(place, redirections):
    """A closed stream discards output; the command still does its work."""
    ended = run_all([*SHOWING, *QUIET, *WRONG], redirections, place)
    assert {command: code for command, (code, _) in ended.items()} == {
        **dict.fromkeys(SHOWING + QUIET, 0),
        **dict.fromkeys(WRONG, 2),
    }
    assert not [said for _, said in ended.values() if "Traceback" in said or "internal error" in said]


def test_standard_output_full_is_no_success_and_one_message(place):
    """Lost results give exit code 1 and one error block; the help is a result, too."""
    ended = run_all(SHOWING, "2>&1 >/dev/full", place)
    for command, (code, said) in ended.items():
        assert code == 1, (command, said)
        assert said.count("error:") == 1, (command, said)
        assert "error: standard output: the results cannot be written (got: No space left on device)" in said, command
        assert "Traceback" not in said, command


def test_standard_error_full_loses_messages_only(place):
    """Without a writable error stream a valid command still works and a wrong one still exits 2."""
    ended = run_all([*SHOWING, *WRONG], "2>/dev/full", place)
    assert {code for command, (code, _) in ended.items() if command in SHOWING} == {0}
    assert {code for command, (code, _) in ended.items() if command in WRONG} == {2}


@pytest.mark.parametrize(
    ("redirections", "code"),
    [
        ("<&- >&- 2>&-", 0),
        pytest.param(">/dev/null 2>/dev/full", 0, marks=pytest.mark.full("faults")),
        pytest.param(">/dev/full 2>/dev/null", 1, marks=pytest.mark.full("faults")),
    ],
)
def test_train_with_streams_closed_or_full_finishes_its_run(
    tmp_path, tiny_llama_directory, small_records, redirections, code
):
    """The run is FINISHED, and none of its files contains console output."""
    arguments = ["train", f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=2"]
    ((ended, said),) = run_all([arguments], redirections, tmp_path).values()
    assert (ended, said) == (code, "")
    (run,) = (tmp_path / "runs").glob("*-run")
    assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "FINISHED"
    for log in ("metrics.ndjson", "events.ndjson"):
        assert all(isinstance(json.loads(line), dict) for line in (run / log).read_text("utf-8").splitlines())
    verified = subprocess.run([*PROGRAM, "runs", "verify", "latest"], cwd=tmp_path, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stdout


EVIL = "20261122T120000Z-\x1b]0;owned\x07\x9b2J\u202e\nvalid: a"


def test_run_name_with_control_characters_is_shown_by_its_codes(place):
    """Every command escapes ESC, BEL, C1, a change of text direction and a line end in an untrusted name."""
    (only,) = (place / "runs").glob("*-a")
    only.rename(place / "runs" / EVIL)
    name = f"runs/{EVIL}"
    commands = [
        ("runs", "list"),
        ("runs", "show", name),
        ("runs", "rm", name, "--dry-run"),
        ("runs", "list", "--json"),
        ("runs", "show", name, "--json"),
        ("runs", "verify", name),
        ("runs", "show", EVIL + "x"),
        ("evaluate", "--checkpoint", name),
        ("generate", "--checkpoint", name, "--prompt", "a"),
        ("serve", "--adapter", f"a={name}"),
        ("runs", "list", f"--{EVIL}"),
        (EVIL,),
        ("data", "validate", EVIL),
        ("train", f"model.path={EVIL}"),
        ("validate", "--config", EVIL),
        ("safety", "test", EVIL),
        ("configs", "show", EVIL),
    ]
    ended = run_all(commands, "", place)
    for command, (_, said) in ended.items():
        assert "owned" in said, command
        assert said.replace("\n", "").isprintable(), (command, said)
        if command in commands[:3]:
            assert not [line for line in said.splitlines() if line.startswith("valid: a")], command
    assert json.loads(ended["runs", "list", "--json"][1])[0]["directory"].endswith(EVIL)
