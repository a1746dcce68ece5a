"""Plain references between values (`${data.path}`), and the refusal of everything else that `${…}` could do."""

from __future__ import annotations

import re
from typing import Any

from codex_ml.config.value_tree import Leaf, ValueTree, plain
from codex_ml.errors import ConfigProblem

# As in OmegaConf, an odd number of backslashes before ``${`` takes its meaning away, and two stand for one.
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
            raise _InterpolationError(f"{_shown(value)} stands for more than {_MAXIMUM_CHARACTERS} characters")
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
            raise _InterpolationError(f"it stands for more than {_MAXIMUM_LOOKUPS} references")
        node = self._tree.find(key)
        if node is None:
            raise _InterpolationError(f"${{{key}}} names no value")
        if not isinstance(node, Leaf):
            raise _InterpolationError(f"${{{key}}} names a whole section ({', '.join(plain(node))})")
        return self.resolve(node.value, depth + 1)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
