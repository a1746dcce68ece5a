"""Plain references between values (`${data.path}`), and the refusal of everything else that `${…}` could do."""

from __future__ import annotations

import re
from typing import Any

from codex_ml.config.value_tree import Leaf, ValueTree, plain
from codex_ml.errors import ConfigProblem

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\}")
_MAXIMUM_DEPTH = 20


class _InterpolationError(ValueError):
    """A reference that cannot be resolved; the message says why."""


def interpolate(tree: ValueTree) -> list[ConfigProblem]:
    """Replace every ``${section.key}`` by the value of that key, in place.

    A value that is nothing but one reference takes the value with its type; inside longer text the value's text is put.
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
            tree.graft(key, Leaf(_resolve(leaf.value, tree, 0), leaf.source))
        except _InterpolationError as error:
            problems.append(
                ConfigProblem(
                    key,
                    f"{error} (from {leaf.source.label})",
                    "only plain references such as ${data.path} are allowed; write the value itself",
                )
            )
    for problem in problems:
        tree.remove(problem.key)
    return problems


def _has_reference(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    return isinstance(value, list) and any(_has_reference(item) for item in value)


def _resolve(value: Any, tree: ValueTree, depth: int) -> Any:
    if isinstance(value, list):
        return [_resolve(item, tree, depth) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if depth > _MAXIMUM_DEPTH:
        raise _InterpolationError(f"{value!r} refers to itself in a circle")
    if "${" in _REFERENCE.sub("", value):
        raise _InterpolationError(f"{value!r} is no plain reference")
    if whole := _REFERENCE.fullmatch(value):
        return _lookup(whole.group(1), tree, depth)
    return _REFERENCE.sub(lambda found: str(_lookup(found.group(1), tree, depth)), value)


def _lookup(key: str, tree: ValueTree, depth: int) -> Any:
    node = tree.find(key)
    if node is None:
        raise _InterpolationError(f"${{{key}}} names no value")
    if not isinstance(node, Leaf):
        raise _InterpolationError(f"${{{key}}} names a whole section ({', '.join(plain(node))})")
    return _resolve(node.value, tree, depth + 1)
