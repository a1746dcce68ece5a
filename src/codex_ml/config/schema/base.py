"""The base of every section of the configuration: frozen, strict, closed to unknown keys, with rules across fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator


@dataclass(frozen=True)
class Violation:
    """One broken rule: the key to look at (relative to its section), what is wrong, what to write."""

    key: str
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Rule:
    """A condition over several fields of one section.

    Attributes
    ----------
    name : str
        Unique name, by which a rule that was reported already is not reported again.
    fields : tuple of str
        Dotted keys, relative to the section, that the rule reads. It is skipped while one of them is itself at fault,
        so that one mistake does not give two messages.
    check : callable
        Takes the section and returns a `Violation`, or ``None`` when the condition holds.
    """

    name: str
    fields: tuple[str, ...]
    check: Callable[[Any], Violation | None]


class RuleError(ValueError):
    """Rules of one section that do not hold; carries all of them with their dotted keys relative to the section."""

    def __init__(self, broken: tuple[tuple[Rule, Violation], ...]) -> None:
        super().__init__("; ".join(f"{violation.key}: {violation.what}" for _, violation in broken))
        self.broken = broken


@dataclass(frozen=True)
class RelativePath:
    """Marks a field as a path that resolves against the directory of the file that names it.

    Attributes
    ----------
    words : frozenset of str
        Values that are words of their own and no paths, such as ``latest``.
    bare_names : bool
        Whether a value with neither a slash nor a suffix is the name of something packaged and no path.
    """

    words: frozenset[str] = frozenset()
    bare_names: bool = False

    def is_path(self, value: str) -> bool:
        """Tell whether this value of the field is meant as a path."""
        if value in self.words:
            return False
        return not (self.bare_names and "/" not in value and Path(value).suffix == "")


# Strict mode would take only `Path` objects; a configuration file holds text.
ConfigPath = Annotated[Path, Field(strict=False)]


class Section(BaseModel):
    """One section of the configuration.

    Strict: no text becomes a number and no ``"yes"`` a truth value; only an integer is accepted for a float. Frozen:
    nothing changes after validation. Unknown keys are refused.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )
    section_key: ClassVar[str] = ""
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self, info: ValidationInfo) -> Self:
        """Check every rule, except those that the caller says cannot be judged yet (``context["skip"]``)."""
        skip: frozenset[str] = (info.context or {}).get("skip", frozenset())
        broken = []
        for rule in self.rules:
            keys = {join_key(self.section_key, field) for field in rule.fields}
            if rule.name in skip or any(_overlaps(key, other) for key in keys for other in skip):
                continue
            violation = rule.check(self)
            if violation is not None:
                broken.append((rule, violation))
        if broken:
            raise RuleError(tuple(broken))
        return self


def join_key(prefix: str, name: str) -> str:
    """Return the dotted key of ``name`` under ``prefix``, which may be empty for the root."""
    return f"{prefix}.{name}" if prefix else name


def _overlaps(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")
