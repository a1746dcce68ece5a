"""Which preparers there are, and how a user's own are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.files import Row
from codex_ml.data.prepare.registry import Entry, Preparer, find_preparers, get_preparer, packaged_preparers
from codex_ml.errors import CodexError, ConfigError, UserError
from codex_ml.registry import Registry


def _own(directory: Path, name: str, config: str, code: str = "") -> Path:
    (directory / name).mkdir(parents=True)
    (directory / name / "preparer.yaml").write_text(config, encoding="utf-8")
    if code:
        (directory / name / "preparer.py").write_text(code, encoding="utf-8")
    return directory


def test_packaged_preparers_all_have_a_description() -> None:
    """The list says what each is for."""
    registry = packaged_preparers()
    assert {"records", "text"} <= set(registry.names())
    assert all(get_preparer(registry, name).config.description for name in registry.names())


def test_find_preparers_own_directory_is_listed_and_run(tmp_path: Path) -> None:
    """A directory of the user's holds a config, and code where rows need it."""
    code = "def read(path, config):\n    for word in path.read_text().split():\n        yield {'text': word}\n"
    _own(tmp_path / "own", "words", "description: one word a record\n", code)
    registry = find_preparers(tmp_path / "own", Registry("preparer"))
    assert registry.names() == ["words"]
    preparer = get_preparer(registry, "words")
    assert len(preparer.code_digest) == 64
    (tmp_path / "a.txt").write_text("x y", encoding="utf-8")
    assert list(preparer.read_fn(tmp_path / "a.txt", preparer.config)) == [
        Row(1, 0, {"text": "x"}),
        Row(2, 0, {"text": "y"}),
    ]


def test_get_preparer_unknown_name_lists_all() -> None:
    """The nearest name is suggested."""
    with pytest.raises(UserError) as raised:
        get_preparer(find_preparers(None), "txt")
    assert "did you mean 'text'?" in raised.value.fix
    assert "tinyshakespeare" in raised.value.fix


def test_find_preparers_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """One name never means two things."""
    with pytest.raises(UserError, match="registered twice"):
        find_preparers(_own(tmp_path, "text", "kind: text\n"))
    with pytest.raises(UserError, match="is no directory"):
        find_preparers(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ("colums: {}\n", "colums", "Extra inputs"),
        ("kind: tables\n", "kind", "'records' or 'text'"),
        ("split: {ratios: [0.5, 0.2, 0.2]}\n", "split", "sum to 0.9"),
        ("url: https://x/y\n", "", "named with its digest"),
        ("kind: text\ncolumns: {text: a}\n", "", "running text has no fields"),
        ("vocabulary_size: '300'\n", "vocabulary_size", "integer"),
        ("[]", "", "holds no mapping"),
        ("a: [", "", "cannot be read"),
    ],
)
def test_get_preparer_faulty_config_names_the_key(tmp_path: Path, config: str, key: str, words: str) -> None:
    """A typing mistake in a config is found before anything is read."""
    registry = find_preparers(_own(tmp_path, "mine", config))
    with pytest.raises(ConfigError) as raised:
        get_preparer(registry, "mine")
    problem = raised.value.problems[0]
    assert "preparer.yaml" in problem.key
    assert key in problem.key
    assert words in problem.what


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_this_name\n", "cannot be loaded"),
        ("raise SystemExit(0)\n", "cannot be loaded"),
        ("x = 1\n", "defines no function read"),
        ("def read(path, config):\n    raise KeyError('a')\n    yield\n", "read failed on"),
        ("def read(path, config):\n    yield 1\n", "read gave a int as record 1"),
    ],
)
def test_get_preparer_faulty_code_is_named_as_the_user_s(tmp_path: Path, code: str, words: str) -> None:
    """What fails in code of the user's is not taken for a fault of the toolkit."""
    registry = find_preparers(_own(tmp_path, "mine", "kind: records\n", code))

    def use() -> None:
        preparer = get_preparer(registry, "mine")
        list(preparer.read_fn(tmp_path / "x", preparer.config))

    with pytest.raises(CodexError, match=r"preparer\.py") as raised:
        use()
    assert words in raised.value.what
    assert raised.value.exit_code == 2


def test_get_preparer_code_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A dangling link is not the same as missing code."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "preparer.yaml").write_text("description: x\n", encoding="utf-8")
    (tmp_path / "mine" / "preparer.py").symlink_to(tmp_path / "nowhere.py")
    with pytest.raises(UserError, match=r"mine/preparer\.py is no file"):
        get_preparer(find_preparers(tmp_path), "mine")


def test_get_preparer_entry_point_of_another_kind_is_refused() -> None:
    """A plugin that brings something else is named."""
    registry: Registry[Entry] = Registry("preparer")
    registry.register("odd", "codex_ml.io.clock:__doc__")
    registry.register("good", Preparer(PreparerConfig()))
    with pytest.raises(UserError, match="is a str, not a Preparer"):
        get_preparer(registry, "odd")
    assert get_preparer(registry, "good").config.kind == "records"
