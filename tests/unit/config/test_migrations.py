"""Versions of the schema, tried with tables of a later version."""

from __future__ import annotations

from pathlib import Path

from codex_ml.config.migrations import MIGRATIONS, Migrations, RenamedKey, migrate, renamed_hint
from codex_ml.config.schema.root import CURRENT_SCHEMA_VERSION
from codex_ml.config.value_tree import Leaf, Source, ValueTree

SOURCE = Source("old.yaml", Path("/"))


def tree_of(values: dict) -> ValueTree:
    """Return a tree of one layer."""
    tree = ValueTree()
    tree.merge(values, SOURCE)
    return tree


def double_epochs(tree: ValueTree) -> None:
    """Version 2 -> 3: epochs counted in halves."""
    leaf = tree.remove("training.epochs")
    assert isinstance(leaf, Leaf)
    tree.graft("training.halves", Leaf(leaf.value * 2, leaf.source))


TABLE = Migrations(
    current=3,
    renamed=(RenamedKey("adapter.rank", "adapter.r", 2), RenamedKey("trainer", "training", 2)),
    steps={2: double_epochs},
)


def test_migrate_older_file_passes_through_every_version():
    """Renames of version 2, then the step to version 3; the origin goes with the value."""
    tree = tree_of({"schema_version": 1, "adapter": {"rank": 4}, "trainer": {"epochs": 2}})
    assert migrate(tree, TABLE) == []
    assert tree.values() == {"schema_version": 3, "adapter": {"r": 4}, "training": {"halves": 4}}
    leaf = tree.find("adapter.r")
    assert isinstance(leaf, Leaf)
    assert leaf.source is SOURCE


def test_migrate_current_or_missing_version_changes_nothing():
    """A file without a version is one of today, so its old keys are refused and not moved."""
    for values in ({"adapter": {"rank": 4}}, {"schema_version": 3, "adapter": {"rank": 4}}):
        tree = tree_of(values)
        assert migrate(tree, TABLE) == []
        assert tree.values() == values


def test_migrate_newer_file_is_refused():
    """A file of a later version is not guessed at."""
    (problem,) = migrate(tree_of({"schema_version": 4}), TABLE)
    assert problem.key == "schema_version"
    assert "old.yaml is of version 4" in problem.what
    assert "upgrade codex-ml" in problem.fix


def test_migrate_version_without_a_way_is_refused():
    """A version that no migration leaves is refused, not taken for the current one."""
    (problem,) = migrate(tree_of({"schema_version": 0}), MIGRATIONS)
    assert "no migration from version 0" in problem.what


def test_migrate_version_that_is_no_integer_is_left_to_the_validation():
    """Types are the schema's business."""
    tree = tree_of({"schema_version": "one"})
    assert migrate(tree, TABLE) == []
    assert tree.values() == {"schema_version": "one"}


def test_renamed_hint_of_key_and_of_section_names_the_new_place():
    """The hint follows a renamed section down to its keys; other keys have none."""
    assert renamed_hint("adapter.rank", TABLE) == "renamed in version 2 to adapter.r: write adapter.r instead"
    assert "training.epochs" in (renamed_hint("trainer.epochs", TABLE) or "")
    assert renamed_hint("trainers", TABLE) is None


def test_migrations_shipped_are_of_the_current_version():
    """The table and the schema agree on what is current."""
    assert MIGRATIONS.current == CURRENT_SCHEMA_VERSION
    assert all(rename.version <= MIGRATIONS.current for rename in MIGRATIONS.renamed)
