"""Places a run writes to, prepared by a stranger: links and second names are refused, what they lead to is kept."""

from __future__ import annotations

import ast
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.monitoring.codex_logging import NdjsonWriter, no_redaction
from codex_ml.recipes.train.resume import find_resume_point
from codex_ml.runs.digest_cache import CACHE_NAME, DigestCache
from codex_ml.runs.layout import RunLayout, close_record, create_run, read_record, read_runs
from codex_ml.runs.listing import summarise

pytestmark = pytest.mark.timeout(300)
STARTED = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """Return a run that ended."""
    layout, record = create_run(tmp_path / "runs", "a", STARTED, Storage())
    close_record(layout, record, "FINISHED", STARTED, Storage())
    return layout


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return somebody's own file."""
    file = tmp_path / "authorized_keys"
    file.write_text("mine")
    return file


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize("name", ["metrics.ndjson", "events.ndjson"])
def test_log_that_is_a_link_is_refused_and_its_target_kept(run, victim, link, name):
    """Lines would be appended to somebody's own file, and its last line cut."""
    link(victim, run.directory / name)
    with pytest.raises(UserError, match="is not written"):
        NdjsonWriter(run.directory / name, 1000, redact=no_redaction)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_staged_name_that_is_a_link_is_refused_and_its_target_kept(run, victim, link):
    """The name of a staged file can be guessed, and a link be put there."""
    link(victim, run.directory / f".run.json.{os.getpid()}.partial")
    with pytest.raises(UserError, match="is not written"):
        Storage().write_json(run.record, {})
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "provenance.json"])
def test_target_that_is_a_link_is_replaced_not_followed(run, victim, name):
    """An atomic write renames over a link."""
    (run.directory / name).unlink(missing_ok=True)
    (run.directory / name).symlink_to(victim)
    Storage().write_atomic(run.directory / name, b"{}")
    assert victim.read_text() == "mine"
    assert not (run.directory / name).is_symlink()


@pytest.mark.parametrize("name", ["metrics.ndjson", ".x.partial"])
def test_pipe_in_the_place_of_a_file_is_refused(run, name):
    """It is not waited for."""
    os.mkfifo(run.directory / name)
    with pytest.raises(UserError, match="is not written"):
        Storage().write_bytes(run.directory / name, b"x")


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "eval",
        "events.ndjson",
        "config.yaml",
        "run.lock",
        "checkpoints/latest",
        "checkpoints/step-00000001",
    ],
)
def test_run_with_a_link_inside_is_neither_resumed_nor_listed_as_sound(run, tmp_path, name):
    """Whatever is written, pruned or read through it would be elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    place = run.directory / name
    if place.is_dir():
        place.rmdir()
    place.symlink_to(elsewhere)
    with pytest.raises(UserError, match="symbolic link"):
        find_resume_point(run.directory, run.directory.parent, "a")
    _, unreadable = read_runs(run.directory.parent)
    assert [item.directory for item in unreadable] == [run.directory]
    assert (elsewhere / "precious").read_text() == "mine"
    assert [entry.name for entry in elsewhere.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["provenance.json", "metrics.ndjson", "checkpoints/best", "eval"])
def test_run_with_a_pipe_inside_is_not_waited_for(run, name):
    """Listing runs would otherwise hang for ever."""
    os.mkfifo(run.directory / name)
    found, unreadable = read_runs(run.directory.parent)
    assert (found, [item.directory for item in unreadable]) == ([], [run.directory])


def test_deep_line_at_the_end_of_the_metrics_is_passed_over(run):
    """A bomb in a log is no step."""
    run.metrics.write_bytes(b'{"step": 3}\n' + b"[" * 8000 + b"\n")
    assert summarise(run, read_record(run)).steps in (3, None)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_digest_cache_that_is_no_file_is_ignored(tmp_path, make):
    """It saves time and proves nothing."""
    make(tmp_path / CACHE_NAME)
    weights = tmp_path / "weights"
    weights.write_bytes(b"x")
    assert DigestCache(tmp_path / CACHE_NAME)(weights).startswith("sha256:")


def test_output_directory_that_is_a_link_is_the_users_own_choice(tmp_path):
    """Runs on another disk are reached by a link; only inside a run nothing leads elsewhere."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    layout, _ = create_run(tmp_path / "runs", "a", STARTED, Storage())
    assert (tmp_path / "disk" / layout.directory.name / "run.json").is_file()
    assert read_record(layout).name == "a"


FORBIDDEN_MODULES = {"tarfile", "zipfile", "pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "imp"}
FORBIDDEN_NAMES = {"unpack_archive", "extractall", "eval", "exec", "__import__"}
FORBIDDEN_CALLS = {("torch", "load"), ("np", "load"), ("numpy", "load"), ("yaml", "load"), ("yaml", "unsafe_load")}


def test_no_archive_is_unpacked_and_no_pickle_read_anywhere(repository_root):
    """No module that unpacks archives or reads pickles is imported, and nothing of the kind is called."""
    found = []
    for file in sorted((repository_root / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found += [(file.name, alias.name) for alias in node.names if alias.name in FORBIDDEN_MODULES]
            elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
                found.append((file.name, node.module))
            elif isinstance(node, ast.Call) and _is_forbidden(node.func):
                found.append((file.name, ast.unparse(node.func)))
    assert found == []


def _is_forbidden(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in FORBIDDEN_NAMES
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    return function.attr in {"unpack_archive", "extractall"} or (owner, function.attr) in FORBIDDEN_CALLS
