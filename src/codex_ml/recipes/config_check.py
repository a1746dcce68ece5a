"""Refuses a configuration that holds a secret: its values are written into the run's files, where none may stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from codex_ml.config.run_file import run_config_values
from codex_ml.config.schema.root import RunConfig
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy

# A marking in the name of a directory gives nothing away; it is the texts below it that must not be passed on.
_HARMLESS_KINDS = ("phrase",)


def refuse_unsafe_values(config: RunConfig) -> None:
    """Stop when a value of the configuration holds what the safety policy takes for a secret or for personal data.

    Redacting would leave a ``config.yaml`` that means another run than the one that was made, so it is refused before
    anything is written. Paths are judged as they are written, relative to the run. The rules apply even where
    ``safety.enabled`` is false: a bypass is for the data.

    Raises
    ------
    ConfigError
        With the key and the rule of every such value, never with the value.
    SafetyError
        If the policy cannot be used.
    """
    output_dir = config.run.output_dir
    assert output_dir is not None, "composing a config fills run.output_dir in"
    filters = SafetyFilters(load_policy(config.safety.policy))
    problems: list[ConfigProblem] = []
    for key, text in _texts(run_config_values(config, output_dir / "run"), ""):
        found = filters.apply(text).findings
        rules = sorted({finding.rule_id for finding in found if finding.kind not in _HARMLESS_KINDS})
        if rules:
            problems.append(
                ConfigProblem(
                    filters.redact(key),
                    f"holds what the safety policy forbids (rule {', '.join(rules)}), and would be written down",
                    "write it without; for a path, rename the file or name a symbolic link",
                )
            )
    if problems:
        raise ConfigError(problems)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of every string in nested values; a key is a text too."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            dotted = f"{key}.{name}" if key else str(name)
            yield dotted, str(name)
            yield from _texts(item, dotted)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{key}[{index}]")
