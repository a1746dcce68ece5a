"""The files that say what a run is made of, written before its first step: config, provenance, account, splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from codex_ml.config.run_file import run_config_values, write_run_config
from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.manifest import without_membership
from codex_ml.data.rejects import rejects_ndjson
from codex_ml.models.source import locate_tokenizer
from codex_ml.recipes.audit_trail import recorded_bypasses, write_audit
from codex_ml.recipes.model_setup import TrainableModel
from codex_ml.recipes.preparation import Prepared
from codex_ml.recipes.safety_filters import safety_summary
from codex_ml.recipes.session import Session
from codex_ml.storage import Storage, file_digest
from codex_ml.tokenizer_names import EXTRA_TOKENIZER
from codex_ml.tracking.provenance import collect_provenance, write_provenance
from codex_ml.training.plan import Plan
from codex_ml.untrusted import read_json

_PROCESS_KEYS = ("code", "versions", "platform", "threads", "environment")


def write_run_files(
    config: TrainConfig,
    prepared: Prepared,
    trainable: TrainableModel,
    session: Session,
    plan: Plan,
    storage: Storage,
    say: Callable[[str], None],
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
            say(
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
