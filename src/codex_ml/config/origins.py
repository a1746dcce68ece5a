"""Shows a validated configuration with the origin of every value, as `--dry-run` prints it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codex_ml.config.schema.base import Section, join_key
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.schema.training import DEFAULT_EPOCHS

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
