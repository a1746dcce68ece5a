"""A finished directory in the place of the one before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.data.prepare.files import MANIFEST_NAME, Change, digests_below, publish, recover, what_is_there
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage


def _made(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    Storage().write_json(directory / MANIFEST_NAME, {"outputs": digests_below(directory)})
    return directory


def _publish(tmp_path: Path, files: dict[str, str]) -> dict[str, Change]:
    target = tmp_path / "out"
    return publish(_made(tmp_path / "made", files), target, what_is_there(target), Storage())


def test_publish_says_what_became_of_each_file(tmp_path: Path) -> None:
    """Created, updated, skipped or removed, and the directory is the new one as a whole."""
    assert _publish(tmp_path, {"a": "1", "b/c": "2", "d": "3"}) == {"a": "created", "b/c": "created", "d": "created"}
    assert _publish(tmp_path, {"a": "1", "b/c": "4"}) == {"a": "skipped", "b/c": "updated", "d": "removed"}
    assert sorted(digests_below(tmp_path / "out")) == ["a", "b/c"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_what_is_there_changed_by_hand_is_refused(tmp_path: Path, change: str) -> None:
    """Work of the user's is never written over."""
    _publish(tmp_path, {"a": "1", "b": "2"})
    if change == "remove":
        (tmp_path / "out" / "a").unlink()
    else:
        (tmp_path / "out" / ("a" if change == "edit" else "new")).write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="changed since it was prepared"):
        what_is_there(tmp_path / "out")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"outputs": []}'])
def test_what_is_there_something_else_is_refused(tmp_path: Path, content: str | None) -> None:
    """A directory that others made is left alone, also one with a file of the manifest's name."""
    out = tmp_path / "out"
    out.mkdir()
    assert what_is_there(out) is None
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    if content is not None:
        (out / MANIFEST_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="was not made by data prepare"):
        what_is_there(out)
    with pytest.raises(DataError, match="was not made by data prepare"):
        what_is_there(out / "notes.txt")


class _KilledAt(Storage):
    """A disk on which the process ends before one of its operations."""

    def __init__(self, number: int) -> None:
        self.left = number

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def replace(self, source: Path, target: Path) -> None:
        self._count()
        super().replace(source, target)

    def remove_tree(self, path: Path) -> None:
        self._count()
        super().remove_tree(path)


@pytest.mark.parametrize("number", range(4))
def test_publish_killed_anywhere_leaves_the_old_or_the_new_one_whole(tmp_path: Path, number: int) -> None:
    """After a recovery there is one whole directory, and nothing beside it."""
    _publish(tmp_path, {"a": "old"})
    made = _made(tmp_path / "made", {"a": "new", "b": "new"})
    target = tmp_path / "out"
    before = what_is_there(target)
    try:
        publish(made, target, before, _KilledAt(number))
    except KeyboardInterrupt:
        assert number < 3
    recover(target, Storage())
    assert what_is_there(target) is not None
    text = (target / "a").read_text(encoding="utf-8")
    assert sorted(digests_below(target)) == (["a"] if text == "old" else ["a", "b"])
    assert {entry.name for entry in tmp_path.iterdir()} <= {"out", "made"}
