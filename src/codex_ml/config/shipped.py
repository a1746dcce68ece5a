"""The configurations that come with the toolkit, by name: listed, found, and copied so that they work elsewhere."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.config.paths import packaged_directory
from codex_ml.config.value_tree import as_text
from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage

if TYPE_CHECKING:
    import yaml

_PACKAGE_LINE = "# @package"
_RUN_LINE = "# Run it: "
_EXAMPLES = "examples"
# Files of the filters, which are no configurations.
_POLICIES = "policies"
_PLAIN_SCALAR = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")


@dataclass(frozen=True)
class ShippedConfig:
    """One file of the packaged tree.

    Attributes
    ----------
    name : str
        As ``--config-name`` takes it (``examples/minimal``), or group and choice (``adapter/none``).
    path : Path
        Where it lies.
    summary : str
        Its first line of comment.
    is_whole : bool
        Whether it is a whole configuration and not one choice of a section.
    """

    name: str
    path: Path
    summary: str
    is_whole: bool

    @property
    def section(self) -> str | None:
        """The section whose file it is; None for a whole configuration."""
        return None if self.is_whole else self.name.partition("/")[0]


@dataclass(frozen=True)
class CopiedConfig:
    """Where a copy lies, and the command that uses it."""

    path: Path
    usage: str


def list_shipped(root: Path | None = None) -> list[ShippedConfig]:
    """Return every configuration of the packaged tree: whole ones first, then the choices of each section."""
    root = root or packaged_directory("configs")
    found = []
    for path in root.rglob("*.yaml"):
        relative = path.relative_to(root)
        if _POLICIES in relative.parts:
            continue
        name = relative.with_suffix("").as_posix()
        is_whole = len(relative.parts) == 1 or relative.parts[0] == _EXAMPLES
        found.append(ShippedConfig(name, path, _summary(path), is_whole))
    return sorted(found, key=lambda config: (not config.is_whole, config.name))


def find_shipped(name: str, root: Path | None = None) -> ShippedConfig:
    """Return the configuration of a name; ``.yaml`` at its end does not matter.

    Raises
    ------
    UserError
        If there is none; the message says what was probably meant, and what there is.
    """
    configs = {config.name: config for config in list_shipped(root)}
    wanted = name.removesuffix(".yaml")
    if wanted in configs:
        return configs[wanted]
    near = difflib.get_close_matches(wanted, configs, n=1) or [key for key in configs if key.endswith(f"/{wanted}")][:1]
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"there is no config {name}", fix=f"{hint}available: {', '.join(configs)}", code="CONFIG_NOT_FOUND")


def copy_shipped(config: ShippedConfig, directory: Path, shown: str, storage: Storage | None = None) -> CopiedConfig:
    """Copy a configuration into a user's own directory, which is made if need be; nothing is overwritten.

    A whole configuration comes to lie at the top of the directory, a choice of a section in the directory of that
    section, so that ``--config-dir`` finds both. Its relative paths, which start at the file, are rewritten to reach
    the same files from there.

    Parameters
    ----------
    config : ShippedConfig
        What to copy.
    directory : Path
        The directory that becomes a ``--config-dir``.
    shown : str
        The directory as the user wrote it; used in the instructions of the copy.
    storage : Storage, optional
        Writes atomically.

    Raises
    ------
    UserError
        If the file is there already, or the directory cannot be one.
    """
    storage = storage or Storage()
    target = Path(os.path.normpath(directory.absolute())) / (config.section or "") / config.path.name
    if os.path.lexists(target):
        raise UserError(
            f"{target} is there already", fix="remove or rename it, or name another directory", code="OUTPUT_EXISTS"
        )
    if config.is_whole:
        usage = f"codex-ml train --config-dir {shown} --config-name {target.stem}"
    else:
        usage = f"codex-ml train --config-dir {shown} {config.section}={target.stem}"
    text = _moved(config, target.parent, usage)
    try:
        storage.make_directory(target.parent)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{target.parent} cannot be a directory: a file is in the way",
            fix="name another",
            code="FILE_NOT_A_DIRECTORY",
        ) from error
    storage.write_atomic(target, text.encode("utf-8"))
    return CopiedConfig(target, usage)


def _summary(path: Path) -> str:
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# ") and not line.startswith(_PACKAGE_LINE):
            return line.removeprefix("# ")
    return ""


def _moved(config: ShippedConfig, directory: Path, usage: str) -> str:
    """Return the text of a configuration as it has to be in another directory."""
    text = config.path.read_text("utf-8")
    for start, end, value in sorted(_relative_paths(text, config.section or ""), reverse=True):
        text = text[:start] + _scalar(os.path.relpath(config.path.parent / value, directory)) + text[end:]
    # At the top of a directory a whole configuration needs no such line, and in another tree it would mislead.
    lines = [line for line in text.splitlines() if not (config.is_whole and line.startswith(_PACKAGE_LINE))]
    # A comment has one line, whatever a directory is called.
    shown = "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in usage)
    lines = [f"{_RUN_LINE}{shown}" if line.startswith(_RUN_LINE) else line for line in lines]
    return "\n".join([f"# Copied from {config.name} of codex-ml; this file is yours to change.", *lines, ""])


def _relative_paths(text: str, section: str) -> Iterator[tuple[int, int, str]]:
    """Yield place (start, end) and value of every relative path in the text of a configuration."""
    # Imported here: listing configurations needs neither the schema nor YAML.
    import yaml

    from codex_ml.config.paths import PATH_FIELDS

    for key, node in _scalars(yaml.compose(text, Loader=yaml.SafeLoader), section):
        mark = PATH_FIELDS.get(key)
        if mark is None or node.tag != "tag:yaml.org,2002:str" or not mark.is_path(node.value):
            continue
        if not node.value.startswith(("/", "~", "${")):
            yield node.start_mark.index, node.end_mark.index, node.value


def _scalars(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield the dotted key and the node of every scalar below a mapping."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value in node.value:
        key = f"{prefix}.{key_node.value}" if prefix else str(key_node.value)
        if isinstance(value, yaml.ScalarNode):
            yield key, value
        else:
            yield from _scalars(value, key)


def _scalar(path: str) -> str:
    """Return a path as YAML; quoted where a character could mean something."""
    if _PLAIN_SCALAR.fullmatch(path):
        return path
    path = as_text(path)
    if not path.isprintable():
        # As JSON, which is valid YAML: between single quotes a line end would become a blank.
        return json.dumps(path, ensure_ascii=False)
    escaped = path.replace("'", "''")
    return f"'{escaped}'"
