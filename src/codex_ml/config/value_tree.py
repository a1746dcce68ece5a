"""Layers of configuration merged into one tree in which every value remembers where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.config.schema.base import join_key


@dataclass(frozen=True)
class Source:
    """Where a value came from: the label to show, and the directory against which its relative paths resolve."""

    label: str
    directory: Path


@dataclass(frozen=True)
class Leaf:
    """One value (no mapping, unless an empty one) and its source."""

    value: Any
    source: Source


Node = dict[str, "Node | Leaf"]


class ValueTree:
    """Nested values with sources; later layers win, mappings merge, everything else is replaced."""

    def __init__(self) -> None:
        self._root: Node = {}

    def merge(self, values: Mapping[Any, Any], source: Source) -> None:
        """Lay nested values over the tree."""
        _merge(self._root, values, source)

    def put(self, key: str, value: Any, source: Source) -> None:
        """Lay one value over the tree at a dotted key."""
        for part in reversed(key.split(".")):
            value = {part: value}
        self.merge(value, source)

    def find(self, key: str) -> Node | Leaf | None:
        """Return the node or leaf at a dotted key, or ``None``."""
        node: Node | Leaf | None = self._root
        for part in key.split("."):
            if not isinstance(node, dict):
                return None
            node = node.get(part)
        return node

    def remove(self, key: str) -> Node | Leaf | None:
        """Take out and return what stands at a dotted key; ``None`` when nothing does."""
        prefix, _, name = key.rpartition(".")
        parent = self.find(prefix) if prefix else self._root
        return parent.pop(name, None) if isinstance(parent, dict) else None

    def graft(self, key: str, node: Node | Leaf) -> None:
        """Put a node or leaf that was removed elsewhere at a dotted key, in place of what stands there."""
        *parents, name = key.split(".")
        parent = self._root
        for part in parents:
            child = parent.get(part)
            if not isinstance(child, dict):
                child = {}
                parent[part] = child
            parent = child
        parent[name] = node

    def leaves(self) -> Iterator[tuple[str, Leaf]]:
        """Yield every dotted key with its leaf."""
        yield from _leaves("", self._root)

    def values(self) -> dict[str, Any]:
        """Return the plain nested values."""
        return _values(self._root)


def plain(node: Node | Leaf) -> Any:
    """Return the plain value of a leaf, or the nested values of a node."""
    return node.value if isinstance(node, Leaf) else _values(node)


def _merge(node: Node, values: Mapping[Any, Any], source: Source) -> None:
    for raw_name, value in values.items():
        name = str(raw_name)
        below = node.get(name)
        if not isinstance(value, Mapping):
            node[name] = Leaf(value, source)
        elif value:
            if not isinstance(below, dict):
                below = {}
                node[name] = below
            _merge(below, value, source)
        elif not isinstance(below, dict):
            # An empty mapping adds nothing to one that is there, as in Hydra.
            node[name] = Leaf({}, source)


def _leaves(prefix: str, node: Node) -> Iterator[tuple[str, Leaf]]:
    for name, child in node.items():
        key = join_key(prefix, name)
        if isinstance(child, Leaf):
            yield key, child
        else:
            yield from _leaves(key, child)


def _values(node: Node) -> dict[str, Any]:
    return {name: plain(child) for name, child in node.items()}
