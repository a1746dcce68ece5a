"""Overrides from the command line (Hydra's grammar) and from the environment (`CODEX_ML_OVERRIDES`, a JSON object)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from codex_ml.config.paths import PATH_FIELDS, option_name
from codex_ml.config.value_tree import Leaf, Source, ValueTree, plain
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.untrusted import UntrustedFileError, parse_json

ENVIRONMENT_OVERRIDES = "CODEX_ML_OVERRIDES"
ENVIRONMENT_OFFLINE = "NO_NETWORK"
COMMAND_LINE = "command line"
_FIX_DEEP = "no key of a configuration lies that deep"
_MOST_DOTS, _SHOWN_CHARACTERS = 20, 100


@dataclass(frozen=True)
class ParsedOverrides:
    """Overrides told apart: choices of a file in a group (Hydra applies them), and values."""

    groups: tuple[str, ...]
    values: tuple[Override, ...]
    problems: tuple[ConfigProblem, ...]


def parse_overrides(overrides: Sequence[str], roots: Sequence[Path]) -> ParsedOverrides:
    """Parse every override; what cannot be parsed becomes a problem, and the others are parsed all the same.

    Parameters
    ----------
    overrides : sequence of str
        ``adapter.r=16``, ``+a.b=1``, ``~a.b``, or ``adapter=none`` (the file ``adapter/none.yaml``).
    roots : sequence of Path
        Configuration directories: a name that is a directory in one of them is a group.
    """
    parser = OverridesParser.create()
    groups, values, problems = [], [], []
    for text in overrides:
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            problems.append(_grammar_problem(text, str(error)))
            continue
        except RecursionError:
            problems.append(
                ConfigProblem(
                    text.partition("=")[0],
                    "its value is nested too deep to be read",
                    _FIX_DEEP,
                    code="CONFIG_OVERRIDE_SYNTAX",
                )
            )
            continue
        if parsed.key_or_group.count(".") > _MOST_DOTS:
            shown = f"{text[:_SHOWN_CHARACTERS]}…"
            problems.append(
                ConfigProblem(
                    shown, f"the key has more than {_MOST_DOTS} parts", _FIX_DEEP, code="CONFIG_OVERRIDE_SYNTAX"
                )
            )
            continue
        if parsed.is_sweep_override():
            problems.append(
                ConfigProblem(
                    parsed.key_or_group,
                    f"{text!r} gives several values at once",
                    f"a list is written {parsed.key_or_group}=[a,b]; text with a comma {quoted_example(text)}",
                    code="CONFIG_OVERRIDE_SYNTAX",
                )
            )
        elif not parsed.key_or_group:
            problems.append(_grammar_problem(text, "the key before '=' is missing"))
        elif _is_group(parsed, roots):
            groups.append(text)
        else:
            values.append(parsed)
    return ParsedOverrides(tuple(groups), tuple(values), tuple(problems))


def apply_overrides(tree: ValueTree, overrides: Sequence[Override], directory: Path) -> list[ConfigProblem]:
    """Lay parsed value overrides over the tree, in order, and return what could not be done.

    A plain key, ``+key`` and ``++key`` all set the value: the schema, not the presence in a file, decides which keys
    exist. ``~key`` takes the value out, so that the schema's default holds; ``~key=value`` only if that is its value.
    """
    source = Source(COMMAND_LINE, directory)
    problems = []
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if not override.is_delete():
            tree.put(key, value, source)
            continue
        found = tree.find(key)
        if found is None:
            problems.append(
                ConfigProblem(
                    key,
                    f"{override.input_line!r}: there is nothing to remove",
                    "leave it out",
                    code="CONFIG_OVERRIDE_WITHOUT_EFFECT",
                )
            )
        elif value is not None and value != plain(found):
            shown = plain(found)
            problems.append(
                ConfigProblem(
                    key,
                    f"{override.input_line!r}: its value is {shown!r}, not {value!r}",
                    f"write ~{key}",
                    code="CONFIG_OVERRIDE_WITHOUT_EFFECT",
                )
            )
        else:
            tree.remove(key)
    return problems


def apply_environment(tree: ValueTree, environment: Mapping[str, str], directory: Path) -> None:
    """Merge the JSON object in ``CODEX_ML_OVERRIDES`` over the tree.

    Raises
    ------
    ConfigError
        If it is no JSON object.
    """
    text = environment.get(ENVIRONMENT_OVERRIDES, "").strip()
    if not text:
        return
    example = f"""{ENVIRONMENT_OVERRIDES}='{{"training": {{"learning_rate": 0.0001}}}}'"""
    try:
        values = parse_json(text.encode("utf-8", "surrogateescape"))
    except UntrustedFileError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    ENVIRONMENT_OVERRIDES,
                    f"cannot be used: {error}",
                    f"write it as {example}",
                    code="CONFIG_ENVIRONMENT_OVERRIDES",
                )
            ]
        ) from error
    if not isinstance(values, dict):
        what = f"is a JSON {type(values).__name__}, not an object"
        raise ConfigError(
            [ConfigProblem(ENVIRONMENT_OVERRIDES, what, f"write it as {example}", code="CONFIG_ENVIRONMENT_OVERRIDES")]
        )
    tree.merge(values, Source(ENVIRONMENT_OVERRIDES, directory))


def apply_no_network(tree: ValueTree, environment: Mapping[str, str], directory: Path) -> None:
    """Force ``offline: true`` when ``NO_NETWORK`` is set to anything but nothing or 0; it beats every other source."""
    if environment.get(ENVIRONMENT_OFFLINE, "").strip() not in ("", "0"):
        tree.graft("offline", Leaf(True, Source(ENVIRONMENT_OFFLINE, directory)))


def quoted_example(text: str) -> str:
    """Return how an override is typed in a shell so that Hydra reads its value as text."""
    key, _, value = text.partition("=")
    return shlex.quote(f"{key}={hydra_quoted(value)}")


def hydra_quoted(text: str) -> str:
    """Return text in double quotes, as Hydra's grammar reads it: a backslash counts only before a quote."""
    inner = re.sub(r'(\\*)"', r'\1\1\\"', text)
    trailing = len(inner) - len(inner.rstrip("\\"))
    return f'"{inner}{inner[len(inner) - trailing :]}"'


def _grammar_problem(text: str, reason: str) -> ConfigProblem:
    key = text.partition("=")[0].strip() or "override"
    if "=" not in text and not text.startswith("~"):
        fix = f"an override is KEY=VALUE, such as {text or 'adapter.r'}=VALUE"
    else:
        fix = f"quote the value, for the shell and for the grammar: {quoted_example(text)}"
        if key in PATH_FIELDS:
            fix += f"; or give it as it is: {option_name(key)} {shlex.quote(text.partition('=')[2])}"
    return ConfigProblem(
        key, f"cannot read the override {text!r}: {reason.splitlines()[0]}", fix, code="CONFIG_OVERRIDE_SYNTAX"
    )


def _is_group(override: Override, roots: Sequence[Path]) -> bool:
    """Tell a choice of a file from a value: the key is a directory, and the value can name a file."""
    if not isinstance(override.value(), str | list | None):
        return False
    parts = override.key_or_group.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return False
    return any(root.joinpath(*parts).is_dir() for root in roots)
