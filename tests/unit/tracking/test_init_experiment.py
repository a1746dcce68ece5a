"""Tests of the script tracking/init_experiment.py as a user calls it; what it does with MLflow is in integration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_help_as_typed_is_fast_and_imports_no_library(repository_root: Path, tmp_path: Path) -> None:
    """`--help` names the options without importing MLflow or the toolkit."""
    program = (
        "import runpy, sys; script = sys.argv[1]; sys.argv = [script, '--help']\n"
        "try: runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "assert not {'mlflow', 'torch', 'codex_ml'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    script = repository_root / "tracking" / "init_experiment.py"
    done = subprocess.run(
        [sys.executable, "-c", program, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for option in ("--output-dir", "--experiment", "--name"):
        assert option in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_server_in_environment_is_refused_with_one_block(repository_root: Path, tmp_path: Path) -> None:
    """A remote store is refused with exit code 2, before anything is imported or written."""
    done = subprocess.run(
        [sys.executable, str(repository_root / "tracking" / "init_experiment.py"), "--output-dir", str(tmp_path / "o")],
        env={"MLFLOW_TRACKING_URI": "http://tracker.example:5000", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: tracking:")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
