"""What the tests of the configuration share: a small tree of files, and a short way to compose from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.config.compose import Composed, compose

TREE = {
    "whole.yaml": "defaults: [/default, _self_]\nmodel: {path: base}\ndata: {path: records.jsonl}\n",
    "plain.yaml": "model: {path: base}\ndata: {path: records.jsonl}\nadapter: {r: 4}\n",
    "adapter/mine.yaml": "r: 3\nalpha: 6\n",
    "nested/deep.yaml": "# @package _global_\ndefaults:\n  - /default\n  - override /adapter: mine\n  - _self_\n"
    "model: {path: ../base}\ndata: {path: ../records.jsonl}\n",
    "nested/bare.yaml": "model: {path: ../base}\ndata: {path: ../records.jsonl}\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a user's configuration directory."""
    root = tmp_path / "mine"
    write_tree(root, TREE)
    return root


def write_tree(root: Path, files: dict[str, str]) -> None:
    """Write files below a directory."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def from_tree(tree: Path, tmp_path: Path) -> Callable[..., Composed]:
    """Return a function that composes a named configuration of the tree, with no environment unless given."""

    def composed(name: str = "whole", *overrides: str, **options: object) -> Composed:
        settings: dict = {"environment": {}, "working_directory": tmp_path, "command": "train", **options}
        return compose(config_name=name, config_dir=tree, overrides=overrides, **settings)

    return composed
