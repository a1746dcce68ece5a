"""YAML read within bounds of size and nesting, with every alias counted at its expanded size."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from codex_ml.io.untrusted import UntrustedFileError, read_bytes

# The parser of libyaml, where PyYAML was built with it, is thirty times faster; both give the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Longer than any number a configuration holds: printing an integer of millions of digits takes minutes.
_LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9A-Fa-f_xXob:.]{99,}")


@dataclass(frozen=True)
class YamlBounds:
    """What a YAML file may be at most.

    Attributes
    ----------
    file_bytes : int
        Length of the file.
    nodes : int
        Scalars, lists and mappings, each alias counted with its full expansion.
    depth : int
        Levels of nesting.
    """

    file_bytes: int
    nodes: int
    depth: int = 32


CONFIG_BOUNDS = YamlBounds(file_bytes=256 << 10, nodes=10_000)


def read_bounded_yaml(file: Path, bounds: YamlBounds = CONFIG_BOUNDS) -> str:
    """Return the text of a YAML file that keeps within bounds; nothing has been built of it.

    Raises
    ------
    UntrustedFileError
        If it is no regular file, too long, too deep or too much.
    UnicodeDecodeError, OSError
        If it is no UTF-8, or cannot be read.
    """
    text = read_bytes(file, bounds.file_bytes).decode("utf-8")
    check_yaml(text, bounds)
    return text


def check_yaml(text: str, bounds: YamlBounds = CONFIG_BOUNDS) -> None:
    """Refuse a YAML text that would expand beyond bounds; see `read_bounded_yaml` for what is raised.

    Invalid YAML passes: the loader reports its error with the position.
    """
    with contextlib.suppress(yaml.YAMLError):
        _count(text, bounds)


def _count(text: str, bounds: YamlBounds) -> None:
    sizes: dict[str, int] = {}  # of every anchor, with its aliases expanded
    open_anchors: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(anchor == event.anchor for anchor, _ in open_anchors):
                raise UntrustedFileError(f"the alias *{event.anchor} is part of its own expansion")
            total += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
                raise UntrustedFileError("it holds a number of more than a hundred digits")
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            open_anchors.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            anchor, before = open_anchors.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        if len(open_anchors) > bounds.depth:
            raise UntrustedFileError(f"it is nested deeper than {bounds.depth} levels")
        if total > bounds.nodes:
            raise UntrustedFileError(f"it holds more than {bounds.nodes} values, with what its aliases (*name) repeat")
