"""The services of ``docker-compose.yml`` in the image test: up, asked, and down."""

from __future__ import annotations

import json
from pathlib import Path

from images.shell import Shell, StepError, wait_for

UP_SECONDS = 1500
HEALTHY_SECONDS = 600
JOBS = ("train", "evaluate")
SERVICES = ("api", "mlflow")
# What a user sees in the end, read where they would read it.
SCORES = """
import json, pathlib
results = [json.loads(file.read_text()) for file in pathlib.Path("runs").glob("*/eval/**/results.json")]
print(json.dumps({one["checkpoint"]: one["metrics"]["rouge_l"]["value"] for one in results}))
"""
ASK = """
import json, urllib.request
def ask(url, body=None):
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=120))
models = [one["id"] for one in ask("http://127.0.0.1:8000/v1/models")["data"]]
text = ask("http://127.0.0.1:8000/v1/completions", {"model": "tuned", "prompt": PROMPT, "max_tokens": 24})
runs = ask("http://mlflow:5000/api/2.0/mlflow/runs/search", {"experiment_ids": ["1"]})["runs"]
states = [one["info"]["status"] for one in runs]
print(json.dumps({"models": models, "text": text["choices"][0]["text"], "runs": states}))
"""
SABOTAGE = """
services:
  api:
    healthcheck:
      test: [CMD, /opt/codex/bin/python, /opt/codex/healthcheck.py, --url, "http://127.0.0.1:1/healthz"]
      interval: 2s
      start_period: 20s
"""


class Compose:
    """One project of compose.

    Parameters
    ----------
    shell : Shell
        Speaks to the daemon.
    directory : Path
        For files of the test.
    """

    def __init__(self, shell: Shell, directory: Path) -> None:
        self._shell, self._directory = shell, directory
        code, _ = shell.try_run("docker", "compose", "version")
        self.program = ["docker", "compose"] if code == 0 else ["docker-compose"]
        self._files: list[str] = []

    def sabotage(self) -> None:
        """Let the API's health check ask where nothing listens."""
        broken = self._directory / "sabotage.yml"
        broken.write_text(SABOTAGE)
        self._files = ["--file", "docker-compose.yml", "--file", str(broken)]

    def up(self) -> None:
        """Bring everything up as typed, and wait for the jobs to end and for every service to be healthy."""
        self._shell.run(*self.program, "config", "--quiet")
        self._shell.run(*self.program, *self._files, "up", "--build", "--detach", limit_seconds=UP_SECONDS)
        for job in JOBS:
            code = wait_for(f"{job} ends", lambda job=job: self._exit_code(job), UP_SECONDS)
            if code != "0":
                raise StepError(f"{job} exits with {code}")
        for service in SERVICES:
            state = wait_for(f"{service} healthy", lambda service=service: self._settled(service), HEALTHY_SECONDS)
            if state != "healthy":
                raise StepError(f"{service} is {state}: {self._inspect(service, '{{json .State.Health}}')}")

    def scores(self) -> str:
        """Return the ROUGE-L of base and adapter, which must show that the adapter has learned.

        Raises
        ------
        StepError
            If it has not.
        """
        scores = json.loads(self._python("api", SCORES))
        tuned = [value for name, value in scores.items() if name != "base"]
        if "base" not in scores or len(tuned) != 1 or not scores["base"] < 0.5 < tuned[0]:
            raise StepError(f"the adapter did not learn, or was not scored: ROUGE-L {scores}")
        return f"ROUGE-L {json.dumps(scores)}"

    def ask_services(self) -> str:
        """Return what API and MLflow say to a program in the API's container.

        Raises
        ------
        StepError
            If a model is not served, an answer is empty, or MLflow does not show the finished run.
        """
        with (self._shell.root / "examples" / "minimal" / "data.jsonl").open(encoding="utf-8") as records:
            prompt = json.loads(next(records))["prompt"]
        said = json.loads(self._python("api", ASK.replace("PROMPT", repr(prompt))))
        if sorted(said["models"]) != ["base", "tuned"] or not said["text"].strip() or said["runs"] != ["FINISHED"]:
            raise StepError(f"the services say {said}")
        return json.dumps(said)

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self._shell.run(*self.program, *self._files, "ps", "--quiet", service).strip()

    def logs(self) -> str:
        """Return the last lines of every container, for an error."""
        _, text = self._shell.try_run(*self.program, *self._files, "logs", "--tail", "40")
        return text

    def down(self) -> None:
        """Take everything down, volumes too."""
        self._shell.run(*self.program, *self._files, "down", "--volumes", "--timeout", "30")

    def _python(self, service: str, program: str) -> str:
        return self._shell.run("docker", "exec", self.container(service), "/opt/codex/bin/python", "-c", program)

    def _inspect(self, service: str, template: str) -> str:
        return self._shell.run("docker", "inspect", "--format", template, self.container(service)).strip()

    def _exit_code(self, job: str) -> str | None:
        if not self.container(job):
            return None
        status, code = self._inspect(job, "{{.State.Status}} {{.State.ExitCode}}").split()
        return code if status == "exited" else None

    def _settled(self, service: str) -> str | None:
        if not self.container(service):
            return None
        state = self._inspect(service, "{{.State.Health.Status}}")
        return None if state == "starting" else state
