"""YAML files of a configuration, combined by Hydra's defaults lists."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codex_ml.config.value_tree import Source, ValueTree
from codex_ml.config.yaml_bounds import read_bounded_yaml
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.untrusted import UntrustedFileError

_HYDRA_VERSION_BASE = "1.3"


def compose_files(
    config_name: str,
    roots: Sequence[Path],
    groups: Sequence[str],
    packaged: Path,
    shown_from: Path,
    wrap_in: str | None,
) -> ValueTree:
    """Return the values of a named configuration and of every file its defaults list brings in.

    Parameters
    ----------
    config_name : str
        Name below a root, without suffix, such as ``examples/minimal``.
    roots : sequence of Path
        Configuration directories, the first one wins.
    groups : sequence of str
        Choices of group files, such as ``adapter=none``.
    packaged : Path
        The toolkit's own tree, whose files are shown as ``configs/…``.
    shown_from : Path
        Directory relative to which other files are shown.
    wrap_in : str or None
        Section under which the keys of the named file itself belong.

    Raises
    ------
    ConfigError
        If a file is missing, is no valid YAML, or its defaults list cannot be followed.
    """
    name = config_name.removesuffix(".yaml")
    with _explained(name):
        primary = find_file(name, roots) if _is_plain(name) else None
    if primary is None:
        raise ConfigError([_unknown_config(config_name, roots)])
    # Before Hydra follows the list; the lists of the files it brings in are looked at below.
    _refuse_references(read_yaml(primary).get("defaults"), primary)
    tree = ValueTree()
    with _explained(name):
        for config_path, package in _defaults_list(name, roots, groups):
            file = find_file(config_path, roots)
            if config_path.startswith("hydra/"):
                # Hydra's own settings take part in every composition and are no part of ours.
                _refuse_settings_of_hydra(config_path, file)
                continue
            if file is None:
                continue
            values: Any = read_yaml(file)
            _refuse_references(values.pop("defaults", None), file)
            if wrap_in is not None and not package:
                package = wrap_in
            for part in reversed(package.split(".") if package else []):
                values = {part: values}
            tree.merge(values, Source(file_label(file, packaged, shown_from), file.parent))
    return tree


def read_yaml(file: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, read safely (no tags that make objects) and with duplicate keys refused.

    Raises
    ------
    ConfigError
        If the file is no valid YAML or holds no mapping.
    """
    with _explained(str(file)):
        # Checked before it is built: a few lines of aliases can expand to gigabytes.
        read_bounded_yaml(file)
        loaded = OmegaConf.load(file)
        values = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(values, dict):
        raise ConfigError(
            [
                ConfigProblem(
                    str(file),
                    "holds no mapping of keys to values",
                    "write KEY: VALUE lines",
                    code="CONFIG_NOT_A_MAPPING",
                )
            ]
        )
    return values


def find_file(config_path: str, roots: Sequence[Path]) -> Path | None:
    """Return the file of a config name in the first root that has it.

    Raises
    ------
    UntrustedFileError
        If it lies outside that root.
    """
    for root in roots:
        candidate = root / f"{config_path}.yaml"
        if candidate.is_file():
            require_inside(candidate, root)
            return candidate
    return None


def file_label(file: Path, packaged: Path, shown_from: Path) -> str:
    """Return how a file is shown: ``configs/…`` for a packaged one, else relative to the working directory."""
    if file.is_relative_to(packaged):
        return f"configs/{file.relative_to(packaged).as_posix()}"
    if file.is_relative_to(shown_from):
        return file.relative_to(shown_from).as_posix()
    return str(file)


def available_names(roots: Sequence[Path]) -> list[str]:
    """Return the names of whole configurations: files at the top of a root, and those in its ``examples``."""
    names = {file.stem for root in roots for file in root.glob("*.yaml")}
    names |= {f"examples/{file.stem}" for root in roots for file in root.glob("examples/*.yaml")}
    return sorted(names)


def _defaults_list(name: str, roots: Sequence[Path], groups: Sequence[str]) -> list[tuple[str, str]]:
    """Return ``(config path, package)`` in merge order, as Hydra works it out."""
    primary, *further = roots
    with initialize_config_dir(str(primary), version_base=_HYDRA_VERSION_BASE):
        loader: Any = GlobalHydra.instance().config_loader()
        # Not by an override of hydra.searchpath: Hydra looks for the named file before it reads that, so a packaged
        # configuration could not be combined with the choices in a user's directory.
        search_path = loader.get_search_path()
        for root in further:
            # Hydra wants its entry "schema" to stay the last one.
            search_path.prepend("codex_ml", f"file://{root}", anchor="schema")
        register_source()
        for element in search_path.get_path():
            scheme, marked, directory = element.path.rpartition("://")
            if not marked or scheme == "file":
                element.path = f"{SCHEME}://{directory}"
        loader.repository.initialize_sources(search_path)
        result = loader.compute_defaults_list(name, list(groups), RunMode.RUN)
    return [(entry.config_path, entry.package or "") for entry in result.defaults if entry.config_path is not None]


def _is_plain(name: str) -> bool:
    """Tell whether a name of a configuration is one below a root, and no path to somewhere else."""
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def _refuse_settings_of_hydra(config_path: str, file: Path | None) -> None:
    """Refuse a choice of Hydra's own settings (launcher, callbacks) that a configuration directory brings."""
    if file is not None:
        raise ConfigError(
            [
                ConfigProblem(
                    str(file),
                    "settings of Hydra itself are not read",
                    f"remove {config_path} and its use",
                    code="CONFIG_HYDRA_SETTINGS",
                )
            ]
        )


def _refuse_references(defaults: Any, file: Path) -> None:
    """Refuse ``${…}`` in a defaults list, where Hydra would resolve it, the environment included."""
    if "${" in str(defaults):
        raise ConfigError(
            [
                ConfigProblem(
                    f"{file}: defaults",
                    "a defaults list must not hold ${…}",
                    "write the name of the file itself",
                    code="CONFIG_DEFAULTS_LIST",
                )
            ]
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what YAML, OmegaConf and Hydra raise into one `ConfigError` that names the file."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name if mark.name.startswith('<') else mark.name}:{mark.line + 1}" if mark is not None else name
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(
            [
                ConfigProblem(
                    place, f"is not valid YAML: {reason}", "correct the file at this line", code="CONFIG_NOT_YAML"
                )
            ]
        ) from error
    except UntrustedFileError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    name, f"is not read: {error}", "write it as a plain, short file", code="CONFIG_FILE_UNREADABLE"
                )
            ]
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            [ConfigProblem(name, f"is not valid YAML: {error}", "save the file as UTF-8 text", code="CONFIG_NOT_YAML")]
        ) from error
    except RecursionError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    name,
                    "its defaults list comes back to itself",
                    "rename the file: one called default.yaml in --config-dir replaces the packaged default.yaml",
                    code="CONFIG_DEFAULTS_LIST",
                )
            ]
        ) from error
    except MissingConfigException as error:
        raise ConfigError([_missing_group_file(name, error)]) from error
    except (HydraException, OmegaConfBaseException) as error:
        cause = error if str(error) else error.__cause__ or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise ConfigError(
            [
                ConfigProblem(
                    name,
                    " ".join(lines[:2]) or type(cause).__name__,
                    "see configs/README.md for defaults lists",
                    code="CONFIG_DEFAULTS_LIST",
                )
            ]
        ) from error
    except OSError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    name,
                    f"cannot be read: {error.strerror}",
                    "check the file's permissions",
                    code="CONFIG_FILE_UNREADABLE",
                )
            ]
        ) from error


def _unknown_config(config_name: str, roots: Sequence[Path]) -> ConfigProblem:
    names = available_names(roots)
    near = difflib.get_close_matches(config_name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    looked = " or ".join(str(root / f"{config_name.removesuffix('.yaml')}.yaml") for root in roots)
    return ConfigProblem(
        "--config-name",
        f"there is no {looked}",
        f"{hint}available: {', '.join(names) or 'none'}",
        code="CONFIG_NOT_FOUND",
    )


def _missing_group_file(name: str, error: MissingConfigException) -> ConfigProblem:
    """Explain a choice such as ``adapter=lor``, which Hydra reports with the options of the group."""
    missing = str(error.missing_cfg_file or name)
    group, _, choice = missing.rpartition("/")
    options = list(error.options or ())
    if not options:
        return ConfigProblem(
            missing,
            f"named in the defaults list of {name}, but there is no {missing}.yaml",
            "correct the name",
            code="CONFIG_NOT_FOUND",
        )
    near = difflib.get_close_matches(choice, options, n=1)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    shown = group.rpartition("/")[2]
    return ConfigProblem(
        group,
        f"there is no file {missing}.yaml to choose",
        f"{hint}available: {', '.join(options)}; one value is set by {shown}.KEY=VALUE",
        code="CONFIG_NOT_FOUND",
    )


SCHEME = "codex-ml-file"


class BoundedFileSource(FileConfigSource):
    """A directory of configuration files that may be untrusted.

    Hydra reads the files of a defaults list by itself, before their values are laid over each other here; a file that
    must not be read has to be refused in this place.
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme before ``://`` in a search path."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file for Hydra."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        if file.is_file():
            require_inside(file, Path(self.path))
            read_bounded_yaml(file)
        return super().load_config(config_path)


def register_source() -> None:
    """Make the source known to Hydra; more than once changes nothing."""
    SourcesRegistry.instance().register(BoundedFileSource)


def require_inside(file: Path, directory: Path) -> None:
    """Refuse a file that does not lie below a directory, by its name or by where a link leads.

    Raises
    ------
    UntrustedFileError
        If it lies elsewhere.
    """
    if not file.resolve().is_relative_to(directory.resolve()):
        raise UntrustedFileError(
            f"{file} lies outside the configuration directory {directory}, by '..' or by a symbolic link"
        )
