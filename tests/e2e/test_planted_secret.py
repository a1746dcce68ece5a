"""Secrets planted in data, configuration and errors appear in no file of a run, in no MLflow value, on no screen."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sqlite3
import string
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.safety]

WORDS = ("river", "stone", "cloud", "lamp", "garden", "window", "paper", "bridge")


class Secrets:
    """Makes secrets at run time, a fresh one for each place; none of them stands in this repository."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.planted: dict[str, str] = {}

    def _text(self, alphabet: str, length: int) -> str:
        return "".join(self._random.choice(alphabet) for _ in range(length))

    def _plant(self, place: str, secret: str) -> str:
        self.planted[place] = secret
        return secret

    def cloud_key(self, place: str) -> str:
        """Return the id of a cloud access key; letters only, so that it may pass for the name of a column."""
        return self._plant(place, "AK" + "IA" + self._text(string.ascii_uppercase, 16))

    def token(self, place: str) -> str:
        """Return a token of a code forge."""
        return self._plant(place, "gh" + "p_" + self._text(string.ascii_letters + string.digits, 36))

    def mail(self, place: str) -> str:
        """Return an e-mail address."""
        return self._plant(place, self._text(string.ascii_lowercase, 9) + "@" + "mail.example.com")

    def private_key(self, place: str) -> str:
        """Return a private key; what must not be found is a line of its body."""
        body = self._plant(place, self._text(string.ascii_letters + string.digits + "+/", 60))
        dashes = "-" * 5
        return f"{dashes}BEGIN RSA PRIV" + f"ATE KEY{dashes}\n{body}\n{dashes}END RSA PRIV" + f"ATE KEY{dashes}"


@dataclass
class Scene:
    """A working directory, what was planted in it, and what its commands have printed."""

    directory: Path
    secrets: Secrets
    screen: str = ""

    def leaks(self) -> list[str]:
        """Return every place where a planted secret is found: files and their names, values of MLflow, the screen."""
        seen = [(f"screen line {number}", line) for number, line in enumerate(self.screen.split("\n"), start=1)]
        found = [
            f"{name} in {place}"
            for place, line in seen
            for name, secret in self.secrets.planted.items()
            if secret in line
        ]
        runs = self.directory / "runs"
        for path in sorted(runs.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            values = _database_text(path) if path.suffix == ".db" else ""
            for name, secret in self.secrets.planted.items():
                if secret.encode() in content or secret in values or secret in str(path.relative_to(runs)):
                    found.append(f"{name} in {path.relative_to(runs)}")
        return found


def _database_text(path: Path) -> str:
    """Return every value of every table."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return "\n".join(repr(row) for table in tables for row in connection.execute(f'select * from "{table}"'))


def _prompt_completion(secrets: Secrets) -> dict[str, Any]:
    return {
        "prompt": f"Write to {secrets.mail('prompt')} about the ",
        "completion": f"the key is {secrets.cloud_key('completion')} and the ",
        "unused": {"notes": [{"deep": secrets.token("nested field")}]},
        secrets.cloud_key("name of a field"): 1,
    }


def _messages(secrets: Secrets) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": f"Use {secrets.private_key('system turn')} for the "},
            {"role": "user", "content": f"I am {secrets.mail('user turn')} and want the "},
            {"role": "assistant", "content": f"take {secrets.token('assistant turn')} with the "},
        ],
    }


def _instruction(secrets: Secrets) -> dict[str, Any]:
    return {
        "instruction": f"Sign with {secrets.private_key('instruction')} the ",
        "input": f"from {secrets.mail('instruction input')} the ",
        "output": f"signed by {secrets.cloud_key('instruction output')} the ",
    }


TOOLS_TEMPLATE = (
    "{% for tool in tools or [] %}{{ '<|tool|>' + tool | tojson }}{% endfor %}{% for message in messages %}"
    "{{ '<|' + message.role + '|>' + (message.name or '') + (message.tool_call_id or '') }}"
    "{{ message.content or '' }}{{ message.tool_calls | tojson if message.tool_calls else '' }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _tool_calls(secrets: Secrets) -> dict[str, Any]:
    """Return a conversation that hides a secret at every place where a tool, its call or its answer has a string."""
    nested = {"deep": [{"note": f"to {secrets.mail('argument in an object')}"}], secrets.cloud_key("key"): 1}
    written = json.dumps({"deep": [{"note": secrets.private_key("argument in a text")}]})
    calls = [
        {"id": secrets.token("id of a call"), "function": {"name": "first", "arguments": nested}},
        {"id": "2", "function": {"name": f"say_{secrets.cloud_key('name of a function')}", "arguments": written}},
    ]
    schema = {"properties": {"city": {"enum": [secrets.mail("definition of a tool")]}}}
    return {
        "messages": [
            {"role": "user", "name": secrets.mail("name of a user"), "content": "Say the "},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": secrets.token("id of an answer"), "content": secrets.cloud_key("answer")},
            {"role": "assistant", "content": [{"type": "text", "text": f"it is {secrets.token('part')} and the "}]},
        ],
        "tools": json.dumps([{"name": "first", "description": secrets.cloud_key("tool"), "parameters": schema}]),
    }


def _lengthened(value: Any, word: str) -> Any:
    """Return a record whose texts end in a word of its own, so that no two records are equal."""
    if isinstance(value, str):
        return value + word if value.endswith(" ") else value
    if isinstance(value, dict):
        return {key: _lengthened(item, word) for key, item in value.items()}
    return [_lengthened(item, word) for item in value] if isinstance(value, list) else value


SHAPES = {"prompt_completion": _prompt_completion, "messages": _messages, "instruction": _instruction}
FIELDS = {
    "prompt_completion": {"prompt", "completion"},
    "messages": {"messages[0].content", "messages[1].content", "messages[2].content"},
    "instruction": {"prompt", "completion"},
}
# Which shape is trained on, validated on and evaluated on: each is read, and each is generated from at least once.
RUNS = {
    "first": ("prompt_completion", "instruction", "messages"),
    "second": ("messages", "prompt_completion", "instruction"),
}


@pytest.fixture(scope="module")
def scene(command_line, tmp_path_factory, tiny_llama_directory) -> Scene:
    """Return what is left after training and evaluating on data of each shape, with every record holding secrets."""
    scene = Scene(tmp_path_factory.mktemp("planted"), Secrets(seed=20))
    sinks = "[mlflow]" if importlib.util.find_spec("mlflow") is not None else "[]"
    for shape, make in SHAPES.items():
        record = make(scene.secrets)
        rows = [_lengthened(record, word) for word in WORDS]
        data = scene.directory / f"{shape}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, (train, valid, test) in RUNS.items():
        for arguments in (
            (
                "train",
                f"model.path={tiny_llama_directory}",
                f"data.train={train}.jsonl",
                f"data.valid={valid}.jsonl",
                f"data.test={test}.jsonl",
                f"run.name={name}",
                f"tracking.sinks={sinks}",
                "training.max_steps=4",
                "training.eval_steps=2",
                "training.logging_steps=1",
                "training.learning_rate=1e-2",
            ),
            ("evaluate", "--checkpoint", "base", "--checkpoint", "latest", "eval.max_new_tokens=8"),
        ):
            answer = command_line.run(*arguments, directory=scene.directory)
            scene.screen += answer.stdout + answer.stderr
            assert answer.returncode == 0, answer.stderr
    return scene


def test_planted_secret_in_data_is_found_nowhere_after_train_and_evaluate(scene):
    """Every byte below runs/, every value of the MLflow store and both output streams hold none of the secrets."""
    assert len(scene.secrets.planted) == 10
    assert scene.leaks() == []


def test_planted_secret_was_found_by_the_filters_and_stands_in_the_audit(scene):
    """The test above would pass on data that nobody read: each finding is in the events, without its text."""
    assert "safety findings in the data" in scene.screen
    for name, shapes in RUNS.items():
        (run,) = scene.directory.glob(f"runs/*-{name}")
        events = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]
        findings = {(event["record_id"], event["field"]) for event in events if event["kind"] == "safety_finding"}
        for shape in shapes:
            fields = {field for record_id, field in findings if record_id == f"{shape}.jsonl:1"}
            assert fields == FIELDS[shape]
        predictions = list(run.glob("eval/*/predictions.ndjson"))
        assert len(predictions) == 2
        assert all("[REDACTED:" in file.read_text("utf-8") for file in predictions)


def test_planted_secret_in_tool_calls_is_found_nowhere(command_line, tmp_path, tiny_llama_directory):
    """Names, ids, arguments however they are written, definitions and answers pass the filters as all text does."""
    scene = Scene(tmp_path, Secrets(seed=23))
    model = tmp_path / "model"
    shutil.copytree(tiny_llama_directory, model)
    (model / "chat_template.jinja").write_text(TOOLS_TEMPLATE, encoding="utf-8")
    record = _tool_calls(scene.secrets)
    rows = [_lengthened(record, word) for word in WORDS]
    arguments = ["model.path=model", "training.max_steps=2", "training.eval_steps=1", "eval.max_new_tokens=4"]
    arguments += ["data.max_length_tokens=500", "data.on_overlong=truncate_prompt_left"]
    files = [f"data.{split}=calls{index}.jsonl" for index, split in enumerate(("train", "valid", "test"))]
    for index in range(3):
        (tmp_path / f"calls{index}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows[index * 2 : index * 2 + 2]), encoding="utf-8"
        )
    for command in (["train", *arguments, *files], ["evaluate", "--checkpoint", "latest"]):
        answer = command_line.run(*command, directory=tmp_path)
        scene.screen += answer.stdout + answer.stderr
        assert answer.returncode == 0, answer.stderr
    assert len(scene.secrets.planted) == 11
    assert scene.leaks() == []
    (run,) = (tmp_path / "runs").glob("*-*")
    events = [json.loads(line) for line in (run / "events.ndjson").read_text("utf-8").split("\n") if line]
    found = {event["field"] for event in events if event["kind"] == "safety_finding"}
    assert found >= {
        *("tools[0]", "messages[0].name", "messages[1].tool_calls[0].arguments", "messages[1].tool_calls[0].id"),
        *("messages[1].tool_calls[1].name", "messages[1].tool_calls[1].arguments", "messages[2].tool_call_id"),
        *("messages[2].content", "messages[3].content"),
    }


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra 'tracking' is not installed")
def test_planted_secret_mlflow_store_was_written_by_every_run(scene):
    """The store that was searched holds both runs, ended, with parameters and metrics."""
    with closing(sqlite3.connect(scene.directory / "runs" / "mlflow.db")) as connection:
        assert connection.execute("select status from runs").fetchall() == [("FINISHED",)] * 2
        assert connection.execute("select count(*) from params").fetchone()[0] > 60
        assert connection.execute("select count(*) from metrics").fetchone()[0] > 10
    assert list((scene.directory / "runs" / "mlartifacts").rglob("config.yaml"))


def test_planted_secret_in_config_values_is_refused_before_anything_is_written(
    command_line, tmp_path, tiny_llama_directory, small_records
):
    """A configuration that would carry secrets into the run's files is refused by key and rule, without the values."""
    scene = Scene(tmp_path, Secrets(seed=21))
    data = tmp_path / f"{scene.secrets.token('file name')}.jsonl"
    data.write_bytes(small_records.read_bytes())
    answer = command_line.run(
        "train",
        f"model.path={tiny_llama_directory}",
        f"data.path={data.name}",
        f"tracking.experiment={scene.secrets.cloud_key('experiment')}",
        "safety.enabled=false",
        f"safety.bypass_reason=asked by {scene.secrets.mail('reason')}",
        directory=tmp_path,
    )
    scene.screen = answer.stdout + answer.stderr
    assert answer.returncode == 2, answer.stderr
    assert "data.path: holds what the safety policy forbids (rule github_token)" in answer.stderr
    assert "tracking.experiment: holds what the safety policy forbids (rule aws_access_key)" in answer.stderr
    assert "safety.bypass_reason: holds what the safety policy forbids (rule email)" in answer.stderr
    assert not (tmp_path / "runs").exists()
    assert scene.leaks() == []


@pytest.mark.parametrize(
    ("place", "debug"), [("adapter.kind", "1"), ("model.path", "0"), ("data.path", "1"), ("line", "1")]
)
def test_planted_secret_in_error_is_redacted_on_screen(
    command_line, tmp_path, tiny_llama_directory, small_records, place, debug
):
    """What an error has to say passes the filters, with and without a traceback; the exit code stays."""
    scene = Scene(tmp_path, Secrets(seed=22))
    secret = scene.secrets.token(place) if place != "line" else scene.secrets.cloud_key(place)
    values = {"model.path": tiny_llama_directory, "data.path": small_records}
    if place == "line":
        values["data.path"] = tmp_path / "records.jsonl"
        (tmp_path / "records.jsonl").write_text(f'{{"{secret}": 1, "{secret}": 2}}\n', encoding="utf-8")
    else:
        values[place] = secret
    answer = command_line.run(
        "train", *(f"{name}={value}" for name, value in values.items()), directory=tmp_path, CODEX_ML_DEBUG=debug
    )
    scene.screen = answer.stdout + answer.stderr
    assert answer.returncode == 2, answer.stderr
    # A key of a record is not shown at all; all else has passed the filters.
    assert ("key (one that is not shown)" if place == "line" else "[REDACTED:") in answer.stderr
    assert ("Traceback" in answer.stderr) == (debug == "1")
    assert scene.leaks() == []
