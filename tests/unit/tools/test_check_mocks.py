"""The mock sweep."""

from __future__ import annotations

import tokenize
from pathlib import Path

import pytest

from check_mocks import main, mocks_in


@pytest.mark.parametrize(
    "code",
    [
        "def test_a(monkeypatch): pass",
        "from unittest import mock",
        "from unittest.mock import MagicMock as Fake",
        "import pytest\npytest.MonkeyPatch()",
        "def test_a(mocker): mocker.patch('a')",
    ],
)
def test_mocks_in_planted_mock_is_found(code: str, tmp_path: Path) -> None:
    """Every usual way to replace parts of our own code is seen."""
    file = tmp_path / "test_a.py"
    file.write_text(code)
    assert mocks_in([file])


def test_mocks_in_words_in_text_are_no_mocks(tmp_path: Path) -> None:
    """Comments and strings may speak of mocks; names that only hold the word are none."""
    file = tmp_path / "test_a.py"
    file.write_text('"""No monkeypatch here."""\n# mock\nmock_count = "MagicMock"\n')
    assert mocks_in([file]) == []


def test_mocks_in_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A file that is not Python must not count as clean."""
    file = tmp_path / "test_a.py"
    file.write_text("def test_a(:\n    '''")
    with pytest.raises(tokenize.TokenError):
        mocks_in([file])


def test_main_this_checkout_has_no_mocks(repository_root: Path) -> None:
    """Our own tests pass their collaborators in."""
    assert main(["--root", str(repository_root)]) == 0
