"""`codex-ml runs` as a user types it: results on stdout, the rest on stderr, no torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.cli.options import DEFAULT_DIRECTORY
from codex_ml.config.paths import DEFAULT_RUNS_DIRECTORY
from codex_ml.io.atomic import Storage
from codex_ml.runs.layout import close_record, create_run

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
# What a run does, as far as the lock and the record are concerned.
RUN = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from codex_ml.runs.layout import create_run
from codex_ml.runs.lock import hold_lock
from codex_ml.io.atomic import Storage
layout, record = create_run(Path(sys.argv[1]), "live", datetime.now(UTC), Storage())
with hold_lock(layout.lock):
    print(layout.directory, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a directory of two ended runs."""
    directory = tmp_path / "runs"
    for name, status in (("a", "FINISHED"), ("b", "FAILED")):
        close_record(*create_run(directory, name, STARTED, Storage()), status, STARTED, Storage())
    return directory


def test_runs_list_json_is_only_json_on_stdout(command_line, tmp_path, runs) -> None:
    """A machine reads stdout as it is; what is odd is said on stderr."""
    (runs / "20261122T120000Z-torn").mkdir()
    answer = command_line.run("runs", "list", "--json", directory=tmp_path)
    assert answer.returncode == 0, answer.stderr
    listed = json.loads(answer.stdout)
    assert {run["name"]: run["status"] for run in listed} == {"a": "FINISHED", "b": "FAILED"}
    assert "passed over 20261122T120000Z-torn" in answer.stderr


def test_runs_list_by_name_from_another_directory(command_line, tmp_path, runs) -> None:
    """--output-dir and --name choose; an absent directory is the user's mistake, an empty one is not."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = tmp_path / "elsewhere"
    answer = command_line.run("runs", "list", "--output-dir", str(runs), "--name", "b", directory=elsewhere)
    assert [line.split()[2] for line in answer.stdout.splitlines()[1:]] == ["b"]
    empty = command_line.run("runs", "list", directory=elsewhere)
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "no runs in runs" in empty.stderr
    absent = command_line.run("runs", "list", "--output-dir", "nowhere", directory=elsewhere)
    assert absent.returncode == 2
    assert "nowhere is no directory" in absent.stderr


def test_runs_list_killed_process_is_closed_and_living_one_is_not(command_line, tmp_path) -> None:
    """While the process lives the run is RUNNING; after kill -9 the next list writes KILLED into its record."""
    directory = tmp_path / "runs"
    with subprocess.Popen([sys.executable, "-c", RUN, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run = Path(process.stdout.readline().strip())
        alive = command_line.run("runs", "list", "--json", directory=tmp_path)
        assert json.loads(alive.stdout)[0]["status"] == "RUNNING"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=120)
    dead = command_line.run("runs", "list", "--json", directory=tmp_path)
    assert json.loads(dead.stdout)[0]["status"] == "KILLED"
    assert "died unexpectedly" in dead.stderr
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["ended"]) == ("KILLED", None)
    assert record["found_dead"]
    assert json.loads((run / "events.ndjson").read_text())["kind"] == "previous_process_died"
    assert command_line.run("runs", "list", directory=tmp_path).stderr == ""


@pytest.mark.usefixtures("runs")
def test_runs_show_latest_name_and_unknown(command_line, tmp_path) -> None:
    """The run is shown by any of its names; an unknown one exits 2 and says what is there."""
    shown = command_line.run("runs", "show", "latest", "--json", directory=tmp_path)
    assert json.loads(shown.stdout)["record"]["name"] == "b"
    text = command_line.run("runs", "show", "20261122T120000Z-a", directory=tmp_path)
    assert "FINISHED at 2026-11-22T12:00:00" in text.stdout
    unknown = command_line.run("runs", "show", "c", directory=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: there is no run c")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("arguments", [["list"], ["show", "latest"]])
def test_runs_imports_neither_torch_nor_hydra(arguments, tmp_path) -> None:
    """Looking at runs is quick: what takes seconds to import stays out."""
    program = (
        "import sys\n"
        "from codex_ml.cli.main import app\n"
        f"try:\n    app({['runs', *arguments]!r}, prog_name='codex-ml')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'mlflow', 'hydra', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_default_directory_is_that_of_the_config() -> None:
    """A run without run.output_dir goes where the list looks."""
    assert Path(DEFAULT_RUNS_DIRECTORY) == DEFAULT_DIRECTORY
