"""Tests of the health check: each of its questions can be answered with no."""

from __future__ import annotations

import http.server
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from codex_ml.offline import OFFLINE_SWITCHES, PRIVACY_SWITCHES


@pytest.fixture(scope="module")
def healthcheck(repository_root: Path) -> ModuleType:
    """Return the script as a module; scripts/ is no package."""
    file = repository_root / "scripts" / "healthcheck.py"
    specification = importlib.util.spec_from_file_location("healthcheck", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def program(tmp_path: Path):
    """Return what writes a command line that says a text and ends with a code."""

    def written(text: str = "codex-ml 1.0", code: int = 0) -> Path:
        file = tmp_path / "codex-ml"
        file.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
        file.chmod(0o755)
        return file

    return written


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers /healthz with 200 and everything else with 503."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """Return the address of a service on this machine."""
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_main_everything_in_order_is_healthy(healthcheck, program, service, tmp_path: Path, capsys) -> None:
    """One line for each question, and nothing is left in the run directory."""
    runs = tmp_path / "runs"
    runs.mkdir()
    arguments = ["--program", str(program()), "--runs", str(runs), "--switches", "--url", f"{service}/healthz"]
    assert healthcheck.main(arguments, healthcheck.SWITCHES) == 0
    assert capsys.readouterr().out.count("healthy: ") == 4
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("program", "exits with 3"),
        ("silent", "exits with 0"),
        ("absent", "cannot be started"),
        ("switch", "HF_HUB_OFFLINE is not 1"),
        ("runs", "cannot be written"),
        ("status", "answers with 503"),
        ("port", "does not answer"),
        ("elsewhere", "only http:// addresses of this machine"),
        ("scheme", "only http:// addresses of this machine"),
    ],
)
def test_main_one_thing_broken_is_unhealthy_and_named(
    healthcheck, program, service, tmp_path: Path, capsys, broken: str, words: str
) -> None:
    """Exit code 1, because Docker keeps 2 for itself; the other questions are still asked."""
    codex_ml = program(code=3) if broken == "program" else program("" if broken == "silent" else "codex-ml 1.0")
    url = {
        "status": f"{service}/readyz",
        "port": "http://127.0.0.1:1/healthz",
        "elsewhere": "http://192.0.2.1/healthz",
        "scheme": "file:///etc/hostname",
    }.get(broken, f"{service}/healthz")
    arguments = [
        *("--program", str(tmp_path / "none" if broken == "absent" else codex_ml)),
        *("--runs", str(tmp_path / "none" if broken == "runs" else tmp_path)),
        *("--switches", "--url", url),
    ]
    switches = {**healthcheck.SWITCHES, **({"HF_HUB_OFFLINE": "0"} if broken == "switch" else {})}
    assert healthcheck.main(arguments, switches) == 1
    said = capsys.readouterr().out
    assert said.count("UNHEALTHY: ") == 1
    assert words in said
    assert said.count("\n") == 4


def test_switches_of_the_images_are_those_of_the_guard(healthcheck, repository_root: Path) -> None:
    """Health check, both images and `codex_ml.offline` say the same."""
    of_the_guard = {**OFFLINE_SWITCHES, **PRIVACY_SWITCHES}
    for name, value in healthcheck.SWITCHES.items():
        assert of_the_guard[name] == value
        for image in ("Dockerfile.cpu", "Dockerfile.cuda"):
            assert f"{name}={value}" in (repository_root / image).read_text()


@pytest.mark.slow
def test_script_outside_a_container_answers_without_torch(repository_root: Path, tmp_path: Path) -> None:
    """As a user runs it, with no switch set; neither it nor the command it starts imports torch."""
    script = [str(repository_root / "scripts" / "healthcheck.py"), "--runs", str(tmp_path), "--timeout", "120"]
    for arguments in (script, ["-m", "codex_ml.cli.main", "--version"]):
        answer = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False, env={}
        )
        assert answer.returncode == 0, answer.stdout
        assert "subprocess" in answer.stderr or "codex_ml" in answer.stderr
        assert " torch" not in answer.stderr
