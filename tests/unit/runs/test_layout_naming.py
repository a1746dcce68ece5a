"""What RUN means on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from codex_ml.errors import UserError
from codex_ml.runs.layout import near_names, resolve_run

STARTED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def test_resolve_run_directory_name_and_latest(make_run, tmp_path) -> None:
    """All three ways lead to the run."""
    old = make_run("a", STARTED)[0]
    new = make_run("b", STARTED + timedelta(hours=1))[0]
    runs = tmp_path / "runs"
    assert resolve_run(str(old.directory), runs) == old
    assert resolve_run(old.directory.name, runs) == old
    assert resolve_run("latest", runs) == new


@pytest.mark.parametrize(
    ("reference", "meant"), [("b", "20261122T130000Z-b"), ("20261122T12000Z-a", "20261122T120000Z-a")]
)
def test_resolve_run_unknown_says_what_was_probably_meant(make_run, tmp_path, reference: str, meant: str) -> None:
    """The name of a run and a misspelt directory are both met with the directory that fits."""
    make_run("a", STARTED)
    make_run("b", STARTED + timedelta(hours=1))
    with pytest.raises(UserError, match=f"there is no run {reference}") as caught:
        resolve_run(reference, tmp_path / "runs")
    assert f"did you mean {meant}?" in caught.value.fix


def test_near_names_mistyped_gives_the_nearest_first() -> None:
    """Each once; what resembles nothing gets no advice."""
    assert near_names("note", ["orders", "notes-2", "notes", "notes"]) == ["notes", "notes-2"]
    assert near_names("note", ["orders"]) == []


@pytest.mark.parametrize("reference", ["latest", "a"])
def test_resolve_run_without_any_says_how_to_name_the_place(tmp_path, reference: str) -> None:
    """Nothing is there: perhaps the runs lie elsewhere."""
    with pytest.raises(UserError) as caught:
        resolve_run(reference, tmp_path)
    assert "--output-dir" in caught.value.fix
