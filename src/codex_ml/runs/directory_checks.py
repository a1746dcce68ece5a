"""Checks a run directory against itself: record, checkpoints, pointers; reads every byte, and needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.runs.checkpoints import STAGING_PREFIX, Pointer, is_validated, list_checkpoints, read_pointer
from codex_ml.runs.layout import RunLayout, RunRecord, format_stamp
from codex_ml.runs.manifest import read_manifest, verify_checkpoint
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER
from codex_ml.runs.verification import Check, compare, mapping

_ABANDONED = "abandoned-*"
_POINTERS: tuple[Pointer, ...] = ("latest", "best")
_BEST = "checkpoints/best"
_SHOWN_CHARACTERS = 80


def check_record(layout: RunLayout, record: RunRecord, provenance: Mapping[str, Any]) -> list[Check]:
    """Hold ``run.json`` against the provenance and the name of the directory."""
    checks = [
        compare("run_id", provenance.get("run_id"), record.run_id),
        compare("started", provenance.get("started"), record.started),
    ]
    stem = _first_name(record)
    if stem is None:
        checks.append(Check("started", "differs", record.started, note="it is no time"))
    elif layout.directory.name.startswith(stem):
        checks.append(Check("directory", "agrees", stem, layout.directory.name))
    else:
        # A directory may be renamed: nothing depends on its name but people.
        note = f"it was made as {stem}, and is {layout.directory.name} now"
        checks.append(Check("directory", "noted", stem, layout.directory.name, note))
    note = {
        "FINISHED": "the run says that it reached its end",
        "RUNNING": "no process uses it: it died and is not marked KILLED yet",
    }.get(record.status, "the run did not reach its end")
    return [*checks, Check("status", "noted", found=record.status, note=f"{record.status}: {note}")]


def check_checkpoints(
    layout: RunLayout, record: RunRecord, provenance: Mapping[str, Any], damaged_before: Mapping[str, str]
) -> list[Check]:
    """Read every file of every checkpoint, hold its manifest against the run's, and see that the pointers lead to one.

    Checkpoints that were set aside are read too; torsos of interrupted saves are named.

    Parameters
    ----------
    damaged_before : mapping
        Those set aside, by ``abandoned-…/step-…``, that the run itself found damaged then, and what it found.
    """
    found = [directory for _, directory in list_checkpoints(layout.checkpoints)]
    aside = sorted(path for path in layout.checkpoints.glob(f"{_ABANDONED}/step-*") if path.is_dir())
    checks: list[Check] = []
    for directory in found:
        checks += _check_checkpoint(layout, directory, record, provenance)
    for directory in aside:
        reason = damaged_before.get(directory.relative_to(layout.checkpoints).as_posix())
        of_it = _check_checkpoint(layout, directory, record, provenance)
        checks += of_it if reason is None or of_it[0].state == "agrees" else [_damaged_then(of_it[0], reason)]
    if not found:
        checks.append(Check("checkpoints", "noted", note="the run has none"))
    if found:
        checks += [_check_pointer(layout.checkpoints, pointer) for pointer in _POINTERS]
        if not is_validated(list_checkpoints(layout.checkpoints)):
            note = "it names the newest: none validated yet"
            checks = [replace(item, note=note) if item.key == _BEST and not item.fails else item for item in checks]
    leftovers = sorted(path.name for path in layout.checkpoints.glob(f"{STAGING_PREFIX}*"))
    note = "an interrupted save left it; the next resume tidies up"
    return checks + [Check(f"checkpoints/{name}", "noted", note=note) for name in leftovers]


def _damaged_then(check: Check, reason: str) -> Check:
    now = "" if check.note == reason else f"; now: {check.note}"
    return Check(check.key, "noted", note=f"was already damaged when it was set aside: {reason}{now}")


def _check_checkpoint(
    layout: RunLayout, directory: Path, record: RunRecord, provenance: Mapping[str, Any]
) -> list[Check]:
    key = directory.relative_to(layout.directory).as_posix()
    try:
        manifest = verify_checkpoint(directory)
    except CheckpointError as error:
        checks = [Check(key, "differs", note=error.why or error.what)]
        try:
            manifest = read_manifest(directory)
        except CheckpointError:
            return checks
    else:
        count = len(manifest["files"])
        checks = [Check(key, "agrees", note=f"{count} files as its manifest says")]
    compute, safety = provenance.get("compute"), provenance.get("safety")
    expected = {
        "run_id": record.run_id,
        "base_model_digest": compute.get("base_model_digest") if isinstance(compute, dict) else None,
        "tokenizer_digest": compute.get("tokenizer_digest") if isinstance(compute, dict) else None,
    }
    if EXTRA_TOKENIZER in manifest and isinstance(compute, dict):
        expected[EXTRA_TOKENIZER] = compute.get(EXTRA_TOKENIZER)
    policy = safety.get("policy_digest") if isinstance(safety, dict) else None
    named = manifest.get("safety")
    own = named.get("policy_digest") if isinstance(named, dict) else None
    differing = [
        compare(f"{key}/manifest.json.{name}", manifest.get(name), value)
        for name, value in expected.items()
        if manifest.get(name) != value
    ]
    if not provenance:
        # That nothing was recorded is said once, where it is missing.
        differing = [check for check in differing if check.key.endswith(".run_id")]
        why = "names this run; base model, tokenizer and policy are not recorded"
    else:
        why = "names this run, base model, tokenizer and policy"
    if provenance and own != policy:
        differing.append(compare(f"{key}/manifest.json.safety.policy_digest", own, policy))
    if provenance and (fault := _bypass_fault(named, safety)) is not None:
        differing.append(Check(f"{key}/manifest.json.safety.bypasses", "differs", note=fault))
    if not differing:
        differing = [Check(f"{key}/manifest.json", "agrees", note=why)]
    return [*checks, *differing]


def _bypass_fault(named: Any, recorded: Any) -> str | None:
    """Return what is wrong with what a checkpoint says of filters that were off; later processes may have added."""
    of_checkpoint, of_run = mapping(named), mapping(recorded)
    if of_checkpoint.get("enabled") != of_run.get("enabled"):
        return "it says otherwise than provenance.json whether the filters were on"
    bypasses, all_of_run = of_checkpoint.get("bypasses"), of_run.get("bypasses")
    if bypasses == all_of_run:
        return None
    if not isinstance(bypasses, list) or not isinstance(all_of_run, list) or not bypasses:
        return "it does not name who turned the filters off"
    return None if bypasses == all_of_run[: len(bypasses)] else "it names others who turned the filters off"


def _check_pointer(checkpoints: Path, pointer: Pointer) -> Check:
    key, file = f"checkpoints/{pointer}", checkpoints / pointer
    if not file.is_file():
        return Check(key, "missing")
    with file.open("rb") as handle:
        text = handle.read(_SHOWN_CHARACTERS).decode("utf-8", "replace").strip()
    target = read_pointer(checkpoints, pointer)
    if target is None:
        return Check(key, "differs", note=f"it names {text!r}, and there is no such checkpoint")
    return Check(key, "agrees", text, target.name)


def _first_name(record: RunRecord) -> str | None:
    """Return how the directory of a run began when it was made; None where its start is no time."""
    try:
        return f"{format_stamp(datetime.fromisoformat(record.started))}-{record.name}"
    except ValueError:
        return None
