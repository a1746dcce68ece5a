"""Files that a run writes about itself: provenance, account, audit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from codex_ml.config.run_file import run_config_values, write_run_config
from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.accounting import rejects_ndjson
from codex_ml.data.manifest import without_membership
from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.io.untrusted import read_json
from codex_ml.models.source import locate_tokenizer
from codex_ml.monitoring.codex_logging import RESERVED_KEYS, read_ndjson
from codex_ml.recipes.inputs import safety_summary
from codex_ml.recipes.preparation import Prepared
from codex_ml.recipes.train.session import Session
from codex_ml.recipes.train.setup import TrainableModel
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER
from codex_ml.safety.filters import Bypass
from codex_ml.tracking.context import ExperimentContext
from codex_ml.tracking.provenance import collect_provenance, write_provenance
from codex_ml.training.checkpoint.state import TrainerState
from codex_ml.training.plan import Plan

_PROCESS_KEYS = ("code", "versions", "platform", "threads", "environment")


def write_run_files(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    session: Session,
    plan: Plan,
    storage: Storage,
    emit: Callable[[str], None],
) -> dict[str, Any]:
    """Write the run's own description, report it to the tracker, and return its provenance.

    A resumed run keeps what its earlier processes ran on, and says what is different now.
    """
    layout, context = session.layout, session.context
    write_run_config(config, layout.config, storage)
    # The account names columns that are not read, and such a name comes from the data.
    storage.write_json(layout.data_account, prepared.filters.redact_value(prepared.dataset.account.to_dict()))
    storage.write_json(layout.data_splits, prepared.dataset.manifest)
    if prepared.dataset.rejects:
        storage.write_atomic(layout.rejects, rejects_ndjson(prepared.dataset.rejects))
    source = trainable.base.source
    provenance = collect_provenance(
        run_id=session.record.run_id,
        started=datetime.fromisoformat(session.record.started),
        config_digest=file_digest(layout.config),
        model_directory=source.directory if source is not None else None,
        model_name=source.name if source is not None else None,
        model_revision=source.revision if source is not None else None,
        tokenizer_directory=locate_tokenizer(config.model).directory if source is None else None,
        digest_of=trainable.digests,
        data=without_membership(prepared.dataset.manifest),
        safety=safety_summary(prepared.filters, prepared.findings, []),
        seeds={"run": config.run.seed, "split": config.data.split.seed},
        threads={"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()},
        compute={
            "device": trainable.base.device.value,
            "device_reason": trainable.base.device.reason,
            "dtype": trainable.base.dtype.value,
            "dtype_reason": trainable.base.dtype.reason,
            "base_model_digest": trainable.base.digest,
            "tokenizer_digest": prepared.tokenizer_digest,
            EXTRA_TOKENIZER: prepared.extra_tokenizer_digest,
            "eos_token_id": prepared.tokenizer.eos_token_id,
            "gradient_checkpointing": config.training.gradient_checkpointing,
            "kernels": trainable.kernels.to_json(),
        },
    )
    earlier = _read_provenance(layout.provenance)
    if earlier is not None:
        provenance["earlier_processes"] = [*earlier.get("earlier_processes", []), process_identity(earlier)]
        changed = changed_identity(earlier, provenance)
        if changed:
            context.log_event("provenance_changed", changed=changed)
            emit(
                f"warning: this process differs from the one before ({', '.join(changed)}): equal bytes are "
                "promised on the same versions and thread count only"
            )
    # Provenance counts the findings, so each stands in the events on the disk before it does.
    write_audit(prepared.audit_events, layout.events, context, prepared.filters.redact_value)
    # Of all processes of the run, as its events have it; in the user's own words, also where they look like a path.
    provenance["safety"]["bypasses"] = recorded_bypasses(layout.events, prepared.bypass)
    write_provenance(layout.provenance, provenance, storage)
    trainable.digests.save(storage)
    context.log_params(run_config_values(config, layout.directory))
    context.log_event("kernels", **trainable.kernels.to_json())
    context.log_event("plan", steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch, records=plan.records)
    for path in (layout.config, layout.provenance, layout.data_splits):
        context.log_artifact(path)
    return provenance


def environment_summary(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of where it was written: no host, no user, no path, nothing that changes by itself.

    Returns
    -------
    dict
        ``versions`` of libraries, ``platform``, ``threads``, ``device``, ``dtype``, ``code_digest`` of codex-ml.
    """
    compute = provenance["compute"]
    return {
        "versions": provenance["versions"],
        "platform": provenance["platform"],
        "threads": provenance["threads"],
        "device": compute["device"],
        "dtype": compute["dtype"],
        "code_digest": provenance["code"]["source_digest"],
    }


def process_identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a provenance that is a process's own: code, versions, machine, threads, kernels."""
    compute = provenance.get("compute")
    kernels = compute.get("kernels") if isinstance(compute, Mapping) else None
    return {**{key: provenance.get(key) for key in _PROCESS_KEYS}, "kernels": kernels}


def changed_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two processes of one run, one level deep, as ``versions.torch: 1 -> 2``."""
    changed = []
    earlier, current = process_identity(before), process_identity(now)
    for key, old in earlier.items():
        new = current[key]
        if isinstance(old, dict) and isinstance(new, dict):
            names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
            changed += [f"{key}.{name}: {old.get(name)} -> {new.get(name)}" for name in names]
        elif old != new:
            changed.append(f"{key}: {old} -> {new}")
    return changed


def _read_provenance(path: Path) -> dict[str, Any] | None:
    """Return the provenance that an earlier process of the run wrote; None where there is none, or none to be read."""
    try:
        values = read_json(path, follow_links=False)
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


# What stands before this event is of records or a policy that the run no longer has.
RESTARTED = "safety_audit_restarted"
_STAGE = "data"
_FINDING, _BYPASS = "safety_finding", "safety_bypass"
# When filters were turned off is said once for each who turned them off, however often the run goes on.
_OF_THE_LINE = (*RESERVED_KEYS, "run_id", "when")


def write_audit(
    events: Sequence[Mapping[str, Any]], path: Path, context: ExperimentContext, redact: Callable[[Any], Any]
) -> None:
    """Bring the audit in ``events.ndjson`` up to what this process found, and force it to the disk.

    What is there decides, not whether a process was there before: one that was killed may have written none, some or
    all. Events of other records (no checkpoint yet, another test file) are followed by `RESTARTED` and by all anew.

    Parameters
    ----------
    events : sequence of mapping
        What the filters of this process found in the data.
    path : Path
        The run's ``events.ndjson``, with the lines of earlier processes.
    context : ExperimentContext
        Writes what is missing.
    redact : callable
        As the context redacts: a record's id may be a word of the data.
    """
    found = [redact(dict(event)) for event in events]
    missing = Counter(_identity(event) for event in found)
    written: Counter[str] = Counter()
    try:
        there = current_audit(read_ndjson(path))
    except UserError:
        # A line that cannot be read may have been any finding: none is taken for written.
        is_other = True
    else:
        written, is_other = Counter(_identity(event) for event in there), _is_of_others(there, found)
    if is_other:
        context.log_event(RESTARTED)
    else:
        missing -= written
    for event, as_written in zip(events, found, strict=True):
        if missing[_identity(as_written)] > 0:
            missing[_identity(as_written)] -= 1
            context.emit(event)
    context.sync()


def current_audit(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the audit events of the data that a run has now, oldest first."""
    audit: list[Mapping[str, Any]] = []
    for line in lines:
        if line.get("kind") == RESTARTED:
            audit.clear()
        elif line.get("kind") == _BYPASS or (line.get("kind") == _FINDING and line.get("stage") == _STAGE):
            audit.append(line)
    return audit


def bypasses_in(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the events of a run say of each bypass, oldest first: stage, reason, who, when, policy."""
    names = [field.name for field in fields(Bypass)]
    return [{name: e.get(name) for name in names} for e in current_audit(lines) if e.get("kind") == _BYPASS]


def recorded_bypasses(path: Path, own: Bypass | None) -> list[dict[str, Any]]:
    """Return the bypasses of a run for its provenance, after its audit was written; none where the filters are on.

    That of this process is among them, also where the events could not be written.
    """
    if own is None:
        return []
    try:
        recorded = bypasses_in(read_ndjson(path))
    except UserError:
        recorded = []
    known = {_identity(bypass) for bypass in recorded}
    return recorded if _identity(own.to_json()) in known else [*recorded, own.to_json()]


def findings_by_rule(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count the findings in the data that a run has now, as provenance counts them."""
    return dict(Counter(str(e.get("rule_id")) for e in current_audit(lines) if e.get("kind") == _FINDING))


def _is_of_others(there: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether an audit is of other records or another policy; who turned the filters off makes no difference."""
    expected = Counter(_identity(event, without="who") for event in found)
    written = Counter(_identity(event, without="who") for event in there if event.get("kind") == _FINDING)
    off = {_identity(event, without="who") for event in there if event.get("kind") == _BYPASS}
    return not (written <= expected and off <= set(expected))


def _identity(event: Mapping[str, Any], without: str = "") -> str:
    own = {key: value for key, value in event.items() if key not in (*_OF_THE_LINE, without)}
    return json.dumps(own, sort_keys=True)


def write_account(prepared: Prepared, session: Session, state: TrainerState, storage: Storage) -> dict[str, Any]:
    """Write what was read and what was computed so far, however the run ended."""
    account = prepared.dataset.account.to_dict()
    account["run"] = {
        "positions_computed": state.trained_tokens + state.masked_tokens + state.padding_tokens,
        "trained": state.trained_tokens,
        "masked": state.masked_tokens,
        "padding": state.padding_tokens,
        # Computed a second time, after their gradients overflowed in float16; not counted as positions once more.
        "windows_repeated": state.overflows,
    }
    # The account names columns that are not read, and such a name comes from the data.
    storage.write_json(session.layout.data_account, prepared.filters.redact_value(account))
    session.context.log_event("data_account", account=account)
    return account
