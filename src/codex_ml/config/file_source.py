"""What Hydra reads configuration files through: only those below their directory, and within bounds."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult

from codex_ml.config.yaml_bounds import read_bounded_yaml
from codex_ml.untrusted import UntrustedFileError

SCHEME = "codex-ml-file"


class BoundedFileSource(FileConfigSource):
    """A directory of configuration files that may come from a stranger.

    Hydra reads the files of a defaults list by itself, before their values are laid over each other here; a file that
    must not be read has to be refused in this place.
    """

    @staticmethod
    def scheme() -> str:
        """Return the word that stands before ``://`` in a search path."""
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
