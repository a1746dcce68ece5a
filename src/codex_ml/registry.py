"""Registries: names with lazy built-in entries and entry-point plugins, and the tables of the named components."""

from __future__ import annotations

import difflib
import importlib
import operator
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from codex_ml.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named components of one kind; an entry is an object or a lazy ``"module:attribute"`` string.

    Parameters
    ----------
    kind : str
        The word for one component in messages, such as ``"metric"``.
    group : str, optional
        Entry-point group in which installed packages offer more components.
    find_entry_points : callable
        Returns the entry points of a group; a parameter so that tests can pass their own.
    """

    def __init__(
        self,
        kind: str,
        group: str | None = None,
        find_entry_points: Callable[[str], Iterable[EntryPoint]] = lambda group: entry_points(group=group),
    ) -> None:
        self._kind = kind
        self._group = group
        self._find_entry_points = find_entry_points
        self._entries: dict[str, T | str] = {}
        self._plugins_read = group is None

    def register(self, name: str, entry: T | str) -> None:
        """Add a component under a name.

        Raises
        ------
        UserError
            If the name is taken: two components under one name would make a config mean two things.
        """
        if name in self._entries:
            raise UserError(
                f"{self._kind} {name!r} is registered twice",
                why="one name must mean one component",
                fix="rename one of the two, or uninstall the plugin that brings it",
                code="CONFIG_NAME_TAKEN",
            )
        self._entries[name] = entry

    def names(self) -> list[str]:
        """Return every known name in alphabetical order."""
        self._read_plugins()
        return sorted(self._entries)

    def unknown(self, name: str) -> tuple[str, str] | None:
        """Return the problem of an unknown name and its fix; None for a known name, which is not imported."""
        names = self.names()
        if name in names:
            return None
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown {self._kind} {name!r}", f"{hint}available: {', '.join(names) or 'none'}"

    def get(self, name: str) -> T:
        """Return the component, importing it first when it was registered lazily.

        Raises
        ------
        UserError
            If no component has this name; the message suggests the nearest and lists all.
        """
        if (unknown := self.unknown(name)) is not None:
            raise UserError(unknown[0], fix=unknown[1], code="CONFIG_UNKNOWN_NAME")
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._import(name, entry)
            self._entries[name] = entry
        return entry

    def _import(self, name: str, reference: str) -> T:
        module_name, _, attribute = reference.partition(":")
        try:
            # allowed: no-dynamic-import no-dynamic-attribute, from a table of this package or an installed plugin
            return cast("T", operator.attrgetter(attribute)(importlib.import_module(module_name)))
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{self._kind} {name!r} cannot be loaded from {reference}",
                why=str(error),
                fix="install what it needs, or choose another",
                code="CONFIG_PLUGIN_NOT_LOADABLE",
            ) from error

    def _read_plugins(self) -> None:
        if self._plugins_read or self._group is None:
            return
        before = dict(self._entries)
        try:
            for point in self._find_entry_points(self._group):
                self.register(point.name, point.value)
        except UserError:
            # As it was, so that the next look-up meets the same collision instead of half of the plugins.
            self._entries = before
            raise
        self._plugins_read = True


METRICS: Registry[Any] = Registry("metric", group="codex_ml.metrics")
for _name in ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "f1", "exact_match"):
    METRICS.register(_name, f"codex_ml.eval.text_metrics:{_name.upper()}")
for _name in ("loss", "perplexity", "token_accuracy"):
    METRICS.register(_name, f"codex_ml.eval.metrics:{_name.upper()}")

SCHEDULES: Registry[Any] = Registry("schedule", group="codex_ml.schedules")
for _name in ("constant", "linear", "cosine"):
    SCHEDULES.register(_name, f"codex_ml.training.optimizer:{_name}")

SINKS: Registry[Any] = Registry("tracking sink", group="codex_ml.sinks")
SINKS.register("mlflow", "codex_ml.tracking.mlflow_sink:create_mlflow_sink")

# Key of the configuration -> the components that it names.
NAMED_COMPONENTS: dict[str, Registry[Any]] = {
    "eval.metrics": METRICS,
    "training.schedule": SCHEDULES,
    "tracking.sinks": SINKS,
}
