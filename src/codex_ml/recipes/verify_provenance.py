"""Reads the provenance of a run for `runs verify`, and says once of each part what could not be held against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codex_ml.errors import UserError
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.run_manifest import RUN_MANIFEST_NAME
from codex_ml.runs.verification import Check, mapping
from codex_ml.tracking.provenance import PROVENANCE_VERSION
from codex_ml.untrusted import read_json

_FILE = "provenance.json"
# What is held against provenance.json alone; other files of a run agree or differ without it.
_PARTS = (
    *("run_id", "started", "config_digest", "seeds", "base_model", "tokenizer", "compute", "safety"),
    *("code", "versions", "platform"),
)


def read_provenance(layout: RunLayout) -> tuple[dict[str, Any], list[Check]]:
    """Return what a run wrote down of itself, empty where it cannot be read, and what is to be said of the file.

    Raises
    ------
    UserError
        If the directory is that of an evaluation.
    """
    try:
        provenance = read_json(layout.provenance, follow_links=False)
    except FileNotFoundError as error:
        if not layout.config.exists():
            raise UserError(
                f"{layout.directory} is not a training run",
                why="it has neither provenance.json nor config.yaml: an evaluation has such a directory",
                fix="name the run whose checkpoint was evaluated",
            ) from error
        return {}, [Check(_FILE, "missing", note="nothing can be held against it")]
    except (OSError, ValueError) as error:
        return {}, [Check(_FILE, "differs", note=f"it is damaged: {error}")]
    version = mapping(provenance).get("provenance_version")
    if version != PROVENANCE_VERSION:
        note = f"written by another version of codex-ml: {version!r}, this one knows {PROVENANCE_VERSION}"
        return mapping(provenance), [Check("provenance_version", "unchecked", PROVENANCE_VERSION, version, note)]
    return provenance, [Check("provenance_version", "agrees", PROVENANCE_VERSION, version)]


def without_provenance(checks: Sequence[Check]) -> list[Check]:
    """Return the checks of a run whose provenance cannot be read: one for each part of it, and those it is idle for.

    Held against nothing, every file of the base model would count as new, and every library as another one.
    """
    kept: dict[str, Check] = {}
    for check in checks:
        part = check.key.partition(".")[0]
        if part in _PARTS or check.key == "data":
            kept.setdefault(part, Check(part, "unchecked", note=f"nothing recorded: {_FILE} cannot be read"))
        elif check.key != f"{RUN_MANIFEST_NAME}.files.{_FILE}" or (_FILE, "missing") not in _states(checks):
            # That it is missing is said of the file itself; its manifest would say it once more.
            kept[check.key] = check
    return list(kept.values())


def _states(checks: Sequence[Check]) -> set[tuple[str, str]]:
    return {(check.key, check.state) for check in checks}
