"""Composes one configuration from files, environment and command line, with the origin of every value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Override

from codex_ml.config.describe import describe_schema
from codex_ml.config.files import compose_files
from codex_ml.config.interpolation import as_text, interpolate
from codex_ml.config.migrations import MIGRATIONS, Migrations, migrate
from codex_ml.config.overrides import apply_environment, apply_no_network, apply_overrides, parse_overrides
from codex_ml.config.paths import DEFAULT_RUNS_DIRECTORY, absolute_paths, option_name
from codex_ml.config.resources import packaged_directory
from codex_ml.config.schema.root import EvaluateConfig, GenerateConfig, RunConfig, ServeConfig, TrainConfig
from codex_ml.config.value_tree import Leaf, Source, ValueTree
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.stopping import STOP

Command = Literal["train", "evaluate", "generate", "serve"]
SCHEMA_DEFAULT = "schema default"
WORKING_DIRECTORY = "working directory"
MISSING = "???"
_CODE_KEYS = frozenset({"_target_", "_partial_", "_args_", "_convert_", "_recursive_"})
SCHEMA_OF: dict[Command, type[RunConfig]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "serve": ServeConfig,
}


@dataclass(frozen=True)
class Composed:
    """A composed configuration that is not validated yet.

    Attributes
    ----------
    command : str
        The command it is for.
    values : dict
        Nested plain values; every path is absolute.
    origins : dict
        For every dotted key: the file, ``command line``, ``CODEX_ML_OVERRIDES``, another label given by the caller, or
        ``schema default``.
    problems : tuple of ConfigProblem
        What is wrong already; the validation raises these together with its own.
    migrations : Migrations
        The versions it was composed with.
    """

    command: Command
    values: dict[str, Any]
    origins: dict[str, str]
    problems: tuple[ConfigProblem, ...] = ()
    migrations: Migrations = MIGRATIONS


# OmegaConf turns an exception of a signal handler that arrives in its constructors into errors of its own.
@STOP.deferred()
def compose(
    command: Command,
    config_name: str = "default",
    config_dir: Path | None = None,
    overrides: Sequence[str] = (),
    working_directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    extra_values: Mapping[str, object] | None = None,
    *,
    packaged: Path | None = None,
    wrap_in: str | None = None,
    migrations: Migrations = MIGRATIONS,
) -> Composed:
    """Compose a named configuration.

    Later sources win: schema defaults, files in the order of the defaults list, ``CODEX_ML_OVERRIDES``, ``overrides``,
    ``extra_values``; ``NO_NETWORK=1`` beats them all for ``offline``.

    Parameters
    ----------
    command : str
        ``"train"``, ``"evaluate"``, ``"generate"`` or ``"serve"``.
    config_name : str
        Name below the configuration directory, such as ``examples/minimal``.
    config_dir : Path, optional
        The user's own configuration directory; it is searched before the packaged one.
    overrides : sequence of str
        Overrides in Hydra's grammar.
    working_directory : Path, optional
        Against which paths of the command line and environment resolve; default: the process's.
    environment : mapping, optional
        Default: that of the process.
    extra_values : mapping, optional
        Dotted key -> value of a command-line option, taken as it is, without Hydra's grammar and without references.
        The origin shown is the option's name, see `codex_ml.config.paths.option_name`.
    packaged : Path, optional
        The toolkit's own tree; default: where it is installed.
    wrap_in : str, optional
        Section that the named file's keys belong to, for the file of a group that stands outside a group's directory.
    migrations : Migrations
        Renames and migrations between versions.

    Raises
    ------
    ConfigError
        If a file or the environment cannot be read at all. Faults in single values are left to the validation, which
        reports them together.
    StopSignal
        After the composition, if the process was asked to stop during it.
    """
    here = (working_directory or Path.cwd()).absolute()
    environment = os.environ if environment is None else environment
    packaged = packaged or packaged_directory("configs")
    roots = _roots(config_dir, packaged, here)
    parsed = parse_overrides(overrides, roots)
    problems = list(parsed.problems)

    tree = compose_files(config_name, roots, parsed.groups, packaged, here, wrap_in)
    problems += migrate(tree, migrations)
    apply_environment(tree, environment, here)
    problems += apply_overrides(tree, parsed.values, here)
    for key, value in (extra_values or {}).items():
        tree.put(key, as_text(str(value)) if isinstance(value, str | Path) else value, Source(option_name(key), here))
    problems += _given_twice(parsed.values, extra_values or {})
    apply_no_network(tree, environment, here)
    problems += settle(tree, environment, here)
    return Composed(command, tree.values(), _origins(tree, command), tuple(problems), migrations)


def _given_twice(overrides: Sequence[Override], options: Mapping[str, object]) -> list[ConfigProblem]:
    return [
        ConfigProblem(
            override.key_or_group,
            f"{override.input_line!r} and {option_name(override.key_or_group)} both give it",
            "keep one of the two",
        )
        for override in overrides
        if override.key_or_group in options and not override.is_delete()
    ]


def settle(tree: ValueTree, environment: Mapping[str, str], working_directory: Path) -> list[ConfigProblem]:
    """Refuse code, fill in what is referred to, and make paths absolute, in place; return what was refused."""
    problems = _refuse_code(tree) + _refuse_missing(tree)
    output = tree.find("run.output_dir")
    if output is None or (isinstance(output, Leaf) and output.value is None):
        source = Source(WORKING_DIRECTORY, working_directory)
        run = tree.find("run")
        if run is None or isinstance(run, dict):
            tree.graft("run.output_dir", Leaf(as_text(str(working_directory / DEFAULT_RUNS_DIRECTORY)), source))
    absolute_paths(tree, environment, resolved=False)
    problems += interpolate(tree)
    absolute_paths(tree, environment, resolved=True)
    return problems


def _roots(config_dir: Path | None, packaged: Path, working_directory: Path) -> tuple[Path, ...]:
    if config_dir is None:
        return (packaged,)
    directory = Path(os.path.normpath(working_directory / config_dir))
    if not directory.is_dir():
        raise ConfigError(
            [ConfigProblem("--config-dir", f"{directory} is no directory", "name a directory of YAML files")]
        )
    return (directory,) if directory.samefile(packaged) else (directory, packaged)


def _refuse_code(tree: ValueTree) -> list[ConfigProblem]:
    """Take out every key that would let a configuration name code to run."""
    found: list[tuple[str, str]] = []
    for key, leaf in tree.leaves():
        parts = key.split(".")
        named = next((index for index, part in enumerate(parts) if part in _CODE_KEYS), None)
        if named is not None:
            found.append((".".join(parts[: named + 1]), leaf.source.label))
        elif _holds_code(leaf.value):
            found.append((key, leaf.source.label))
    problems = []
    for key, label in dict(found).items():
        tree.remove(key)
        problems.append(
            ConfigProblem(
                key,
                f"a configuration must not name code to run (_target_ and its like), and {label} does",
                "remove it; components are chosen by their names, such as adapter.kind=lora",
            )
        )
    return problems


def _holds_code(value: Any) -> bool:
    if isinstance(value, dict):
        return any(name in _CODE_KEYS or _holds_code(item) for name, item in value.items())
    return isinstance(value, list) and any(_holds_code(item) for item in value)


def _refuse_missing(tree: ValueTree) -> list[ConfigProblem]:
    """Take out every ``???``, which in a file means that the user has to give the value."""
    missing = [(key, leaf.source.label) for key, leaf in tree.leaves() if leaf.value == MISSING]
    for key, _ in missing:
        tree.remove(key)
    return [ConfigProblem(key, f"{label} leaves it to you (???)", f"set {key}=VALUE") for key, label in missing]


def _origins(tree: ValueTree, command: Command) -> dict[str, str]:
    origins = {field.key: SCHEMA_DEFAULT for field in describe_schema(SCHEMA_OF[command])}
    for key, leaf in tree.leaves():
        # A free mapping such as data.columns has keys below the one the schema knows.
        origins.pop(key.rpartition(".")[0], None)
        origins[key] = leaf.source.label
    return origins
