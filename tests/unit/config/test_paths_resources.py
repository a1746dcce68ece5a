"""Where the packaged files are found."""

from __future__ import annotations

import pytest

from codex_ml.config.paths import packaged_directory
from codex_ml.errors import UserError


def test_packaged_directory_of_this_installation_exists():
    """Configurations and examples come with the toolkit."""
    assert (packaged_directory("configs") / "default.yaml").is_file()
    assert packaged_directory("examples").is_dir()


def test_packaged_directory_in_a_wheel_comes_first(tmp_path):
    """A wheel carries the files inside the package; a checkout has them beside src."""
    package = tmp_path / "src" / "codex_ml"
    package.mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    assert packaged_directory("configs", package) == tmp_path / "configs"
    (package / "_packaged" / "configs").mkdir(parents=True)
    assert packaged_directory("configs", package) == package / "_packaged" / "configs"


def test_packaged_directory_absent_says_where_it_looked(tmp_path):
    """A damaged installation is told apart from a wrong name."""
    with pytest.raises(UserError, match="'examples' is missing") as raised:
        packaged_directory("examples", tmp_path / "src" / "codex_ml")
    assert str(tmp_path / "examples") in raised.value.why
