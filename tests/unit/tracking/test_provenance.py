"""Tests of provenance: everything that decides a run is digested, and nothing private is named."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codex_ml.io.atomic import file_digest
from codex_ml.tracking.provenance import (
    LIBRARIES,
    ProvenanceDependencies,
    code_identity,
    collect_provenance,
    installed_version,
    model_identity,
    run_git,
    write_provenance,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory that looks like a local model."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"):
        (directory / name).write_text(name)
    (directory / "extra").mkdir()
    return directory


def collect(model: Path | None, **changes: Any) -> dict[str, Any]:
    """Collect with plain values, some of them changed."""
    values: dict[str, Any] = {
        "run_id": "r1",
        "started": datetime(2026, 11, 3, 10, 0, tzinfo=UTC),
        "config_digest": "sha256:c",
        "model_directory": model,
        "data": {"train": {"digest": "sha256:d", "records": 10}},
        "safety": {"enabled": True, "policy_digest": "sha256:p"},
        "seeds": {"run": 0, "split": 0},
        "threads": {"torch": 2},
    }
    return collect_provenance(**{**values, **changes})


def test_collect_provenance_complete_run_names_all_parts(model: Path) -> None:
    """Weights, data, config, code, versions, seeds, threads and policy all stand in it, as plain JSON."""
    provenance = collect(model, compute={"device": "cpu", "dtype": "float32"})
    assert json.loads(json.dumps(provenance)) == provenance
    assert (provenance["run_id"], provenance["started"]) == ("r1", "2026-11-03T10:00:00.000000Z")
    assert provenance["base_model"]["name"] == "tiny"
    assert provenance["base_model"]["files"]["model.safetensors"] == {
        "digest": file_digest(model / "model.safetensors"),
        "bytes": 17,
    }
    assert provenance["data"]["train"]["digest"] == "sha256:d"
    assert (provenance["config_digest"], provenance["safety"]["policy_digest"]) == ("sha256:c", "sha256:p")
    assert (provenance["seeds"], provenance["threads"]) == ({"run": 0, "split": 0}, {"torch": 2})
    assert provenance["compute"] == {"device": "cpu", "dtype": "float32"}
    assert set(provenance["versions"]) == set(LIBRARIES)
    assert provenance["versions"]["torch"] == installed_version("torch") is not None
    assert provenance["code"]["source_digest"].startswith("sha256:")


def test_collect_provenance_real_machine_names_no_host_user_or_path(model: Path) -> None:
    """No value is the host's or the user's name, and no string is an absolute path."""
    strings: list[str] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                strings.append(key)
                gather(item)
        elif isinstance(value, list):
            for item in value:
                gather(item)
        elif isinstance(value, str):
            strings.append(value)

    gather(
        collect(
            model,
            data={
                "files": [{"path": "/home/anna/data.jsonl"}],
                "base": model / "x.jsonl",
                "windows": "C:\\Users\\a.txt",
            },
        )
    )
    assert socket.gethostname() not in strings
    assert getpass.getuser() not in strings
    assert not [text for text in strings if text.startswith("/") or ":\\" in text]
    assert {"data.jsonl", "x.jsonl", "a.txt"} <= set(strings)


def test_collect_provenance_bypass_reason_is_kept_word_for_word(model: Path) -> None:
    """The user's reason is not taken for a path, even when it begins like one."""
    reason = "/etc/motd says that this machine holds test data only"
    assert collect(model, safety={"enabled": False, "bypass_reason": reason})["safety"]["bypass_reason"] == reason


def test_collect_provenance_environment_holds_known_switches_only() -> None:
    """Of the environment only what decides a run is kept: no secrets, no host names."""
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "API_KEY": "secret", "NO_PROXY": "intranet.example"}
    dependencies = ProvenanceDependencies(environment=environment, version=lambda _name: None)
    provenance = collect(None, dependencies=dependencies)
    assert provenance["environment"] == {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    assert provenance["base_model"] is None
    assert set(provenance["versions"].values()) == {None}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_model_identity_one_byte_changed_changes_the_digest(model: Path, name: str) -> None:
    """Every file that decides what the model does is in the digest."""
    before = model_identity(model)["digest"]
    (model / name).write_text(name + "!")
    assert model_identity(model)["digest"] != before


def test_model_identity_readme_changed_changes_nothing(model: Path) -> None:
    """A file that does not decide anything is not in the digest."""
    before = model_identity(model)
    (model / "README.md").write_text("other")
    assert model_identity(model) == before


def test_collect_provenance_model_of_the_cache_names_model_and_commit(model: Path) -> None:
    """A snapshot's directory is called by its commit: the name and the commit are given, digests may be cached."""
    asked: list[str] = []

    def digest_of(path: Path) -> str:
        asked.append(path.name)
        return file_digest(path)

    base = collect(model, model_name="org/tiny", model_revision="abc", digest_of=digest_of)["base_model"]
    assert (base["name"], base["revision"]) == ("org/tiny", "abc")
    assert base["files"] == collect(model)["base_model"]["files"]
    assert "model.safetensors" in asked
    assert collect(model)["base_model"]["revision"] is None


def git_that_answers(**answers: str | None) -> Any:
    """Return a git that answers by subcommand."""

    def git(arguments: Sequence[str], _directory: Path) -> str | None:
        return answers.get(arguments[0].replace("-", "_"))

    return git


def test_code_identity_checkout_names_commit_and_changes(tmp_path: Path) -> None:
    """In a checkout the commit is named, and whether the package differs from it."""
    (tmp_path / "__init__.py").write_text("")
    clean = code_identity(tmp_path, git_that_answers(ls_files="__init__.py", rev_parse="abc", status=""))
    dirty = code_identity(tmp_path, git_that_answers(ls_files="__init__.py", rev_parse="abc", status=" M x.py"))
    assert (clean["git_commit"], clean["git_dirty"], dirty["git_dirty"]) == ("abc", False, True)


def test_code_identity_installed_below_a_foreign_checkout_names_no_commit(tmp_path: Path) -> None:
    """A package in a virtual environment is no part of the repository around it; its sources are digested."""
    (tmp_path / "__init__.py").write_text("")
    identity = code_identity(tmp_path, git_that_answers(ls_files=None, rev_parse="foreign", status=""))
    assert (identity["git_commit"], identity["git_dirty"]) == (None, None)
    (tmp_path / "module.py").write_text("x = 1\n")
    assert code_identity(tmp_path, git_that_answers())["source_digest"] != identity["source_digest"]


def test_run_git_no_repository_or_no_such_directory_gives_none(tmp_path: Path) -> None:
    """Whatever keeps git from answering, provenance continues without it."""
    assert run_git(["rev-parse", "HEAD"], tmp_path / "absent") is None
    assert run_git(["no-such-subcommand"], tmp_path) is None


def test_write_provenance_value_is_read_back(tmp_path: Path, model: Path) -> None:
    """The file holds what was collected."""
    provenance = collect(model)
    write_provenance(tmp_path / "provenance.json", provenance)
    assert json.loads((tmp_path / "provenance.json").read_text("utf-8")) == provenance
