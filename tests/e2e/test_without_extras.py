"""Where the optional packages are not installed, a run says what is lost and how to get it, and ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import codex_ml

pytestmark = pytest.mark.slow

OPTIONAL = ("mlflow", "pynvml", "nvidia_ml_py", "wandb", "tensorboard")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python that finds every library of this one but the optional ones."""
    directory = tmp_path_factory.mktemp("bare")
    libraries = directory / "libraries"
    libraries.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(OPTIONAL) and entry.suffix != ".pth" and not (libraries / entry.name).exists():
                (libraries / entry.name).symlink_to(entry)
    venv.create(directory / "venv", with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    package = Path(codex_ml.__file__).parents[1]
    (directory / "venv" / "lib" / version / "site-packages" / "libraries.pth").write_text(f"{libraries}\n{package}\n")
    return directory / "venv" / "bin" / "python"


def test_train_with_a_tracker_that_is_not_installed_warns_and_finishes(
    bare_python, tmp_path, tiny_llama_directory, small_records
) -> None:
    """One warning with what is lost and the command that installs it; the run itself is whole."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    settings = [f"model.path={tiny_llama_directory}", f"data.path={small_records}", "training.max_steps=2"]
    answer = subprocess.run(
        [str(bare_python), "-m", "codex_ml.cli.main", "train", *settings, "tracking=mlflow"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert answer.returncode == 0, answer.stderr
    (warning,) = [line for line in answer.stderr.splitlines() if "mlflow is not installed" in line]
    assert "pip install 'codex-ml[tracking]'" in warning
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "FINISHED"
    events = [json.loads(line) for line in (run / "events.ndjson").read_text().splitlines()]
    assert [event["dependency"] for event in events if event["kind"] == "sink_missing"] == ["mlflow"]
