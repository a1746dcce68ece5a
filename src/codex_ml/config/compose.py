"""A configuration composed from defaults, named files and overrides, with the origin of every value."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Override

from codex_ml.config.files import compose_files
from codex_ml.config.messages import describe_schema
from codex_ml.config.migrations import MIGRATIONS, Migrations, migrate
from codex_ml.config.overrides import apply_environment, apply_no_network, apply_overrides, parse_overrides
from codex_ml.config.paths import DEFAULT_RUNS_DIRECTORY, absolute_paths, option_name, packaged_directory
from codex_ml.config.schema.base import Section, join_key
from codex_ml.config.schema.root import EvaluateConfig, GenerateConfig, RunConfig, ServeConfig, TrainConfig
from codex_ml.config.schema.training import DEFAULT_EPOCHS
from codex_ml.config.value_tree import Leaf, Source, ValueTree, as_text, interpolate
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.stopping import STOP

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
    problems += resolve_references_and_paths(tree, environment, here)
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


def resolve_references_and_paths(
    tree: ValueTree, environment: Mapping[str, str], working_directory: Path
) -> list[ConfigProblem]:
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


_INDENT = "  "
_WIDEST_COLUMN = 60


def render_resolved(config: Section, origins: Mapping[str, str]) -> str:
    """Return every value of a configuration as YAML, each line with where the value came from as its comment.

    A null that stands for another value is shown as that value, with the reason.

    Parameters
    ----------
    config : Section
        A validated configuration.
    origins : mapping
        Dotted key -> origin, as `compose` returns it; a key it does not name has the schema's default.
    """
    values = config.model_dump(mode="python")
    origins = dict(origins)
    if isinstance(config, TrainConfig) and config.training.epochs is None and config.training.max_steps is None:
        values["training"]["epochs"] = DEFAULT_EPOCHS
        origins["training.epochs"] = "default where training.epochs and training.max_steps are null"
    lines = list(_lines(values, "", 0))
    width = min(max(len(text) for _, text in lines), _WIDEST_COLUMN)
    shown = []
    for key, text in lines:
        if key is None:
            shown.append(text)
            continue
        shown.append(f"{text:<{width}}  # {_origin(key, origins)}")
    return "\n".join(shown)


def _origin(key: str, origins: Mapping[str, str]) -> str:
    return origins.get(key) or origins.get(key.rpartition(".")[0]) or "schema default"


def _lines(values: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str | None, str]]:
    """Yield ``(dotted key, text)``; a heading has no key."""
    for name, value in values.items():
        key = join_key(prefix, name)
        if isinstance(value, Mapping) and value:
            yield None, f"{_INDENT * depth}{name}:"
            yield from _lines(value, key, depth + 1)
        else:
            yield key, f"{_INDENT * depth}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    """Return a value as YAML; JSON is YAML, and plain words need no quotes."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value.replace("-", "").replace("_", "").replace("/", "").replace(".", "").isalpha():
        return value if value not in ("null", "true", "false", "yes", "no", "on", "off") else json.dumps(value)
    if isinstance(value, float):
        # YAML 1.1 takes 1e-08 for text; with a point it is a number for every reader.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
