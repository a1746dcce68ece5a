"""Inputs that several jobs share, without torch: checked settings, safety filters, progress lines."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.config.run_file import run_config_values
from codex_ml.config.schema.root import RunConfig
from codex_ml.config.schema.safety import SafetySection
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.io.clock import format_time, utc_now
from codex_ml.io.stopping import STOP
from codex_ml.io.terminal import write_message
from codex_ml.monitoring.debug_log import LOGGER
from codex_ml.safety.filters import Bypass, SafetyFilters
from codex_ml.safety.policy import load_policy


def emit(text: str) -> None:
    """Print a line on the error stream, and into the debug log of a run at work.

    A reader that went away, or a full disk behind the stream, is no reason to end a run.
    """
    LOGGER.info(text)
    write_message(text)


_EVERY_SECONDS = 10.0
# Asking the time costs something; so many records take a moment only.
_LOOK_EVERY_RECORDS = 256
# Of these, the place of a record is the place in the file.
_PLAIN_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".txt", ""})


class ReadingProgress:
    """Told of each record, says now and then how far the reading is.

    Parameters
    ----------
    emit : callable
        Takes a line.
    seconds : callable
        A clock that never goes back.
    """

    def __init__(self, emit: Callable[[str], None], seconds: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._seconds = seconds
        self._said = seconds()
        self._records = 0

    def __call__(self, path: Path, offset: int) -> None:
        """Take one record: the file it is from, and where it begins in bytes of the file as it is unpacked.

        Raises
        ------
        StopSignal
            If the process was asked to stop and the exception of the signal handler was lost.
        """
        self._records += 1
        if self._records % _LOOK_EVERY_RECORDS:
            return
        STOP.check()
        now = self._seconds()
        if now - self._said < _EVERY_SECONDS:
            return
        self._said = now
        share = ""
        if path.suffix.lower() in _PLAIN_SUFFIXES and (size := path.stat().st_size):
            share = f", {offset / size:.0%} of {path.name}"
        self._emit(f"reading data: {self._records:,} records{share or f', now in {path.name}'}")


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


def open_filters(safety: SafetySection) -> SafetyFilters:
    """Load the policy and build the filters of a config.

    Raises
    ------
    SafetyError
        If the policy cannot be used, or the filters are off without a reason.
    """
    policy = load_policy(safety.policy)
    return SafetyFilters(policy, safety.enabled, safety.bypass_reason, pseudonyms=safety.pseudonyms)


def user_name() -> str:
    """Return who runs this process, as the operating system knows them; environment variables are not asked."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@dataclass(frozen=True)
class BypassRecorder:
    """Who sees that filters are off: the job, the user and the clock.

    Parameters
    ----------
    stage : str
        What is done without filters: ``"train"`` or ``"evaluate"``.
    """

    stage: str
    who: Callable[[], str] = user_name
    clock: Callable[[], datetime] = utc_now

    def bypass(self, filters: SafetyFilters) -> Bypass | None:
        """Return the record that filters are off; None where they are on."""
        if filters.bypass_reason is None:
            return None
        policy = filters.policy
        moment = format_time(self.clock())
        return Bypass(self.stage, filters.bypass_reason, self.who(), moment, policy.name, policy.digest)


def bypass_warnings(filters: SafetyFilters) -> list[str]:
    """Return the line that a user is to see before anything is read without filters; none where they are on."""
    if not filters.bypassed:
        return []
    return [
        f"warning: safety filters are bypassed, which is meant for tests: {filters.bypass_reason} "
        f"(the policy {filters.policy.name} is not applied to data, logs and predictions; what is made so says so)"
    ]


def safety_summary(
    filters: SafetyFilters, findings: dict[str, int], bypasses: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what provenance says of safety: the policy, each bypass with who, when and why, and what was found."""
    return {
        "enabled": not filters.bypassed,
        "policy": filters.policy.name,
        "policy_digest": filters.policy.digest,
        "bypass_reason": filters.bypass_reason,
        "bypasses": [dict(bypass) for bypass in bypasses],
        "findings_by_rule": dict(sorted(findings.items())),
    }
