"""Path, name and preset of a config lead to one place each."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.config.schema.model import ModelSection
from codex_ml.errors import ModelError
from codex_ml.models.source import check_source, locate_model, locate_tokenizer


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose cache holds org/tiny at commit abc."""
    repository = tmp_path / "models--org--tiny"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    return {"HF_HUB_CACHE": str(tmp_path)}


def test_locate_model_by_path_name_and_preset(environment: dict[str, str], tmp_path: Path) -> None:
    """Directory, key for messages, name and commit; a preset has no weights."""
    by_path = locate_model(ModelSection(path=tmp_path / "m"), environment)
    assert by_path is not None
    assert (by_path.directory, by_path.key, by_path.name, by_path.revision) == (tmp_path / "m", "model.path", "m", None)
    by_name = locate_model(ModelSection(name="org/tiny"), environment)
    assert by_name is not None
    assert by_name.directory == tmp_path / "models--org--tiny" / "snapshots" / "abc"
    assert (by_name.key, by_name.name, by_name.revision) == ("model.name", "org/tiny", "abc")
    with pytest.raises(ModelError, match="no revision v2 of org/tiny"):
        locate_model(ModelSection(name="org/tiny", revision="v2"), environment)
    assert locate_model(ModelSection(preset="llama-tiny", tokenizer=tmp_path), environment) is None


def test_locate_tokenizer_lies_beside_the_weights_or_where_a_preset_names_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """One place for each way to name a model; none is an error."""
    wish = ModelSection(name="org/tiny")
    assert locate_tokenizer(wish, environment) == locate_model(wish, environment)
    preset = locate_tokenizer(ModelSection(preset="llama-tiny", tokenizer=tmp_path / "t"), environment)
    assert (preset.directory, preset.key) == (tmp_path / "t", "model.tokenizer")
    with pytest.raises(ModelError, match=r"model.tokenizer: not set"):
        locate_tokenizer(ModelSection(), environment)


def test_check_source_whole_model_passes_and_half_a_model_does_not(
    environment: dict[str, str], tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """What loading would refuse is refused before: an empty directory, an empty snapshot, no tokenizer."""
    check_source(ModelSection(path=tiny_llama_directory))
    check_source(ModelSection(preset="llama-tiny", tokenizer=tiny_llama_directory))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"model\.path: no config\.json"):
        check_source(ModelSection(path=tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"model\.name: no config\.json"):
        check_source(ModelSection(name="org/tiny"), environment)
    with pytest.raises(ModelError, match=r"model\.tokenizer: no tokenizer in"):
        check_source(ModelSection(preset="llama-tiny", tokenizer=tmp_path / "empty"))
