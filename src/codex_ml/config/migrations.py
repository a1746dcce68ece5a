"""Versions of the configuration's keys: renames, migrations of older files, and the refusal of newer ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from codex_ml.config.schema.root import CURRENT_SCHEMA_VERSION
from codex_ml.config.value_tree import Leaf, ValueTree
from codex_ml.errors import ConfigProblem


@dataclass(frozen=True)
class RenamedKey:
    """A key that has another name since a version of the schema."""

    old: str
    new: str
    version: int


@dataclass(frozen=True)
class Migrations:
    """Everything that tells versions apart.

    Attributes
    ----------
    current : int
        The version this toolkit reads and writes.
    renamed : sequence of RenamedKey
        In a file of an older version the key is moved; elsewhere it is refused with its new name.
    steps : mapping of int to callable
        ``steps[n]`` changes a tree of version ``n`` in place so that it is one of version ``n + 1``, for what renames
        cannot say. It runs after the renames of version ``n + 1``.
    """

    current: int = CURRENT_SCHEMA_VERSION
    renamed: Sequence[RenamedKey] = ()
    steps: Mapping[int, Callable[[ValueTree], None]] = field(default_factory=dict)


# Version 1 is the first: there is nothing to rename or to migrate yet.
MIGRATIONS = Migrations()


def migrate(tree: ValueTree, migrations: Migrations = MIGRATIONS) -> list[ConfigProblem]:
    """Bring the values of a file to the current version, in place.

    A missing ``schema_version`` means the current one. A value that is no integer is left for the validation to refuse.

    Returns
    -------
    list of ConfigProblem
        One problem if the file is newer than the toolkit or older than every migration; else none.
    """
    leaf = tree.find("schema_version")
    if not isinstance(leaf, Leaf) or type(leaf.value) is not int or leaf.value == migrations.current:
        return []
    version = leaf.value
    if version > migrations.current:
        tree.graft("schema_version", Leaf(migrations.current, leaf.source))
        return [
            ConfigProblem(
                "schema_version",
                f"{leaf.source.label} is of version {version}, and this codex-ml reads version {migrations.current}",
                "upgrade codex-ml, or write the file for this version",
                code="CONFIG_VERSION",
            )
        ]
    while version < migrations.current:
        renames = [rename for rename in migrations.renamed if rename.version == version + 1]
        step = migrations.steps.get(version)
        if not renames and step is None:
            tree.graft("schema_version", Leaf(migrations.current, leaf.source))
            return [
                ConfigProblem(
                    "schema_version",
                    f"{leaf.source.label} is of version {leaf.value}, and there is no migration from version {version}",
                    f"write the file for version {migrations.current} (codex-ml validate lists what must change)",
                    code="CONFIG_VERSION",
                )
            ]
        for rename in renames:
            node = tree.remove(rename.old)
            if node is not None:
                tree.graft(rename.new, node)
        if step is not None:
            step(tree)
        version += 1
    tree.graft("schema_version", Leaf(migrations.current, leaf.source))
    return []


def renamed_hint(key: str, migrations: Migrations = MIGRATIONS) -> str | None:
    """Return what became of an unknown key that an older version knew, or ``None``."""
    for rename in migrations.renamed:
        if key == rename.old or key.startswith(f"{rename.old}."):
            new = rename.new + key[len(rename.old) :]
            return f"renamed in version {rename.version} to {new}: write {new} instead"
    return None
