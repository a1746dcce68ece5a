"""A tree of values with the origin of each, and the interpolations in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.config.schema.base import join_key
from codex_ml.errors import ConfigProblem


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
        """Remove and return the node at a dotted key; ``None`` if there is none."""
        prefix, _, name = key.rpartition(".")
        parent = self.find(prefix) if prefix else self._root
        return parent.pop(name, None) if isinstance(parent, dict) else None

    def graft(self, key: str, node: Node | Leaf) -> None:
        """Put a node or leaf that was removed elsewhere at a dotted key, replacing the present one."""
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


# As in OmegaConf, an odd number of backslashes before ``${`` escapes it, and two mean one.
_OPENING = re.compile(r"(\\*)\$\{")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\}")
_MAXIMUM_DEPTH = 20
# Text that refers to text twice, which refers to text twice … doubles with every level.
_MAXIMUM_CHARACTERS = 65536
_MAXIMUM_LOOKUPS = 1000
_SHOWN_CHARACTERS = 200


class _InterpolationError(ValueError):
    """A reference that cannot be resolved; the message says why."""


def interpolate(tree: ValueTree) -> list[ConfigProblem]:
    r"""Replace every ``${section.key}`` by the value of that key, in place.

    A value that is nothing but one reference takes the value with its type; inside longer text the value's text is put.
    ``\${`` is no reference but the two characters themselves (see `as_text`).
    Resolvers such as ``${oc.env:HOME}`` are refused, so that a configuration never depends on what it does not show.

    Returns
    -------
    list of ConfigProblem
        References that name no key, run in a circle, or are no plain references. Their values are taken out.
    """
    problems = []
    for key, leaf in list(tree.leaves()):
        if not _has_reference(leaf.value):
            continue
        try:
            tree.graft(key, Leaf(_Resolver(tree).resolve(leaf.value, 0), leaf.source))
        except _InterpolationError as error:
            problems.append(
                ConfigProblem(
                    key,
                    f"{error} (from {leaf.source.label})",
                    "only plain references such as ${data.path} are allowed; write the value itself",
                    code="CONFIG_INTERPOLATION",
                )
            )
    for problem in problems:
        tree.remove(problem.key)
    return problems


def as_text(text: str) -> str:
    """Return a text so written that `interpolate` gives it back as it is, whatever characters it holds."""
    return _OPENING.sub(lambda found: found.group(1) * 2 + r"\${", text)


def _has_reference(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    return isinstance(value, list) and any(_has_reference(item) for item in value)


class _Resolver:
    """Resolves one value; counts what it looks up, which a chain of references can multiply without end."""

    def __init__(self, tree: ValueTree) -> None:
        self._tree = tree
        self._lookups = 0

    def resolve(self, value: Any, depth: int) -> Any:
        """Return a value with its references replaced."""
        if isinstance(value, list):
            return [self.resolve(item, depth) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        if depth > _MAXIMUM_DEPTH:
            raise _InterpolationError(f"{_shown(value)} refers to itself in a circle")
        if whole := _REFERENCE.fullmatch(value):
            return self._look_up(whole.group(1), depth)
        text = self._resolve_parts(value, depth)
        if len(text) > _MAXIMUM_CHARACTERS:
            raise _InterpolationError(f"{_shown(value)} expands to more than {_MAXIMUM_CHARACTERS} characters")
        return text

    def _resolve_parts(self, value: str, depth: int) -> str:
        parts = []
        position = 0
        while opening := _OPENING.search(value, position):
            backslashes = len(opening.group(1))
            parts += [value[position : opening.start()], "\\" * (backslashes // 2)]
            if backslashes % 2:
                parts.append("${")
                position = opening.end()
                continue
            reference = _REFERENCE.match(value, opening.end() - len("${"))
            if reference is None:
                raise _InterpolationError(f"{_shown(value)} is no plain reference")
            parts.append(str(self._look_up(reference.group(1), depth)))
            position = reference.end()
        return "".join([*parts, value[position:]])

    def _look_up(self, key: str, depth: int) -> Any:
        self._lookups += 1
        if self._lookups > _MAXIMUM_LOOKUPS:
            raise _InterpolationError(f"it expands to more than {_MAXIMUM_LOOKUPS} references")
        node = self._tree.find(key)
        if node is None:
            raise _InterpolationError(f"${{{key}}} names no value")
        if not isinstance(node, Leaf):
            raise _InterpolationError(f"${{{key}}} names a whole section ({', '.join(plain(node))})")
        return self.resolve(node.value, depth + 1)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
