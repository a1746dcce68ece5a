"""A model is found by its name in the local Hugging Face cache, or what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.errors import ModelError
from codex_ml.models.hub_cache import cache_directory, find_snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def add_model(cache: Path, name: str = "org/tiny", commit: str = COMMIT, ref: str | None = "main") -> Path:
    """Lay a model into a cache as huggingface_hub does: blobs, links to them in a snapshot, a ref."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        blob = repository / "blobs" / f"{commit[:4]}-{file}"
        blob.write_text(file)
        (snapshot / file).symlink_to(f"../../blobs/{blob.name}")
    if ref is not None:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return snapshot


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment that names a cache below ``tmp_path``."""
    return {"HF_HUB_CACHE": str(tmp_path / "hub")}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"}, "/old"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "~/h"}, "/home/me/h/hub"),
        ({"HF_HOME": "$HOME/h"}, "/home/me/h/hub"),
        ({"HF_HUB_CACHE": ""}, "/home/me/.cache/huggingface/hub"),
        ({}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_cache_directory_follows_the_hubs_own_variables(variables: dict[str, str], expected: str) -> None:
    """The order is that of huggingface_hub, so both look in one place."""
    assert cache_directory({"HOME": "/home/me", **variables}) == Path(expected)


def test_cache_directory_equals_that_of_the_hubs_library(tmp_path: Path) -> None:
    """With the environment of a process of its own, huggingface_hub says the same."""
    import subprocess
    import sys

    program = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    for variables in (
        {"HF_HOME": str(tmp_path)},
        {"XDG_CACHE_HOME": str(tmp_path)},
        {"HF_HOME": "~/a", "HOME": "/root"},
    ):
        answer = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
        )
        assert Path(answer.stdout.strip()) == cache_directory(variables)


def test_find_snapshot_main_by_default_and_tag_and_commit(environment: dict[str, str], tmp_path: Path) -> None:
    """A branch and a tag go through refs, a commit names its snapshot."""
    first = add_model(tmp_path / "hub")
    second = add_model(tmp_path / "hub", commit="f" * 40, ref="refs/pr/1")
    found = find_snapshot("org/tiny", None, environment)
    assert (found.directory, found.commit, found.name) == (first, COMMIT, "org/tiny")
    assert (found.directory / "config.json").read_text() == "config.json"
    assert find_snapshot("org/tiny", "refs/pr/1", environment).directory == second
    assert find_snapshot("org/tiny", "f" * 40, environment).directory == second


def test_find_snapshot_name_without_organisation(environment: dict[str, str], tmp_path: Path) -> None:
    """Old names have one part."""
    snapshot = add_model(tmp_path / "hub", name="gpt2")
    assert find_snapshot("gpt2", None, environment).directory == snapshot


def test_find_snapshot_absent_model_names_place_neighbours_and_how_to_bring_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Which directory was looked for, what is there, and the command that brings it."""
    add_model(tmp_path / "hub", name="Org/Tiny-1B")
    with pytest.raises(ModelError, match=r"model.name: org/tiny-1b is not in the Hugging Face cache") as caught:
        find_snapshot("org/tiny-1b", None, environment)
    assert str(tmp_path / "hub" / "models--org--tiny-1b") in caught.value.why
    assert "did you mean Org/Tiny-1B?" in caught.value.why
    assert "hf download org/tiny-1b" in caught.value.fix
    assert "model.path" in caught.value.fix


def test_find_snapshot_absent_cache_says_which_variables_place_it(environment: dict[str, str], tmp_path: Path) -> None:
    """Perhaps the cache lies elsewhere."""
    with pytest.raises(ModelError) as caught:
        find_snapshot("org/tiny", None, environment)
    assert f"there is no cache at {tmp_path / 'hub'} (HF_HUB_CACHE or HF_HOME" in caught.value.why


@pytest.mark.parametrize("revision", [None, "v2", "0" * 40])
def test_find_snapshot_absent_revision_lists_those_that_are_there(
    environment: dict[str, str], tmp_path: Path, revision: str | None
) -> None:
    """Without refs/main nothing is guessed, not even when there is one snapshot only."""
    add_model(tmp_path / "hub", ref="v1")
    with pytest.raises(ModelError, match=f"no revision {revision or 'main'} of org/tiny") as caught:
        find_snapshot("org/tiny", revision, environment)
    assert f"refs: v1; snapshots: {COMMIT}" in caught.value.why
    assert "model.revision" in caught.value.fix


def test_find_snapshot_links_without_blobs_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    """A copy that left the blobs behind is told from a model that is not there."""
    add_model(tmp_path / "hub")
    (tmp_path / "hub" / "models--org--tiny" / "blobs" / "0123-model.safetensors").unlink()
    with pytest.raises(ModelError, match="links to nothing") as caught:
        find_snapshot("org/tiny", None, environment)
    assert "model.safetensors" in caught.value.why
    assert "config.json" not in caught.value.why


@pytest.mark.parametrize("content", ["../../../elsewhere", "..", "", "\n", "a/b"])
def test_find_snapshot_ref_that_leads_elsewhere_is_no_revision(
    environment: dict[str, str], tmp_path: Path, content: str
) -> None:
    """A ref is a file from elsewhere: what stands in it may only name a snapshot."""
    add_model(tmp_path / "hub")
    (tmp_path / "hub" / "elsewhere").mkdir()
    (tmp_path / "hub" / "models--org--tiny" / "refs" / "main").write_text(content)
    with pytest.raises(ModelError, match="no revision main"):
        find_snapshot("org/tiny", None, environment)
