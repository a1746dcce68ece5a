"""Tests of `python -m codex_ml.monitoring.codex_logging`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from codex_ml.monitoring.codex_logging import NdjsonWriter, main, no_redaction, read_ndjson
from codex_ml.monitoring.dependencies import DependencyStatus

STATUSES = (
    DependencyStatus("psutil", "available", "load", "pip install psutil"),
    DependencyStatus("mlflow", "missing", "the store", "pip install mlflow"),
)


def test_main_dry_run_prints_status_and_writes_nothing(tmp_path: Path) -> None:
    """The status names what is missing, what is lost and how to install it."""
    output = io.StringIO()
    sample_file = tmp_path / "sample.ndjson"
    arguments = ["--dry-run", "--emit-sample", "--output", str(sample_file)]
    assert main(arguments, output, probe=lambda: STATUSES) == 0
    assert output.getvalue() == (
        "telemetry status\n  psutil: available\n  mlflow: missing\n    lost: the store\n    fix:  pip install mlflow\n"
    )
    assert not sample_file.exists()


def test_main_emit_sample_appends_one_record(tmp_path: Path) -> None:
    """The sample holds the state of the dependencies and a measurement of this process."""
    sample_file = tmp_path / "sample.ndjson"
    for _ in range(2):
        assert main(["--emit-sample", "--output", str(sample_file)], io.StringIO(), probe=lambda: STATUSES) == 0
    records = list(read_ndjson(sample_file))
    assert [record["kind"] for record in records] == ["telemetry_sample"] * 2
    assert records[0]["dependencies"] == {"psutil": "available", "mlflow": "missing"}
    assert records[0]["system"]["resident_bytes"] > 0


def test_main_output_that_cannot_be_written_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not there, and a file that another writer holds: one message, exit code 2, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(["--emit-sample", "--output", str(tmp_path / "absent" / "x.ndjson")], io.StringIO(), lambda: STATUSES)
    assert stopped.value.code == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    held = tmp_path / "held.ndjson"
    with NdjsonWriter(held, redact=no_redaction):
        assert main(["--emit-sample", "--output", str(held)], io.StringIO(), lambda: STATUSES) == 2
    assert "is being written by another writer" in capsys.readouterr().err


def test_main_no_choice_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a choice it says which there are, with exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "--dry-run" in capsys.readouterr().err


def test_module_dry_run_as_typed_exits_zero_without_torch(tmp_path: Path) -> None:
    """`python -m codex_ml.monitoring.codex_logging --dry-run` works and stays light."""
    program = (
        "import runpy, sys; sys.argv = ['x', '--dry-run']\n"
        "try: runpy.run_module('codex_ml.monitoring.codex_logging', run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "assert not {'torch', 'transformers', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "telemetry status" in done.stdout
    assert list(tmp_path.iterdir()) == []
