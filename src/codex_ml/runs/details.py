"""Everything that `runs show` prints of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import file_digest
from codex_ml.io.terminal import visible_name
from codex_ml.io.untrusted import MAX_MEMBERSHIP_BYTES, read_json
from codex_ml.runs.checkpoints import is_validated, list_checkpoints, read_pointer
from codex_ml.runs.layout import RunLayout, RunRecord
from codex_ml.runs.listing import summarise
from codex_ml.runs.manifest import MANIFEST_NAME, read_manifest

WHOLE, DAMAGED = "whole", "damaged"


def describe_run(layout: RunLayout, record: RunRecord) -> dict[str, Any]:
    """Return what `runs show` shows, as JSON values.

    Keys: ``directory``, ``record``, ``steps``, ``best_validation_loss``, ``config``, ``base_model``, ``data``,
    ``safety``, ``checkpoints``, ``evaluations``, ``outputs`` and ``damaged`` (files that cannot be read).
    What the run never wrote is null or empty.
    """
    damaged: list[str] = []
    provenance = _read(layout.provenance, damaged)
    summary = summarise(layout, record)
    return {
        "directory": str(layout.directory),
        "record": asdict(record),
        "steps": summary.steps,
        "best_validation_loss": summary.best_validation_loss,
        "config": _config(layout, provenance),
        "base_model": _base_model(provenance),
        "data": _data(provenance),
        "safety": _mapping(provenance.get("safety")),
        "checkpoints": describe_checkpoints(layout.checkpoints),
        "evaluations": _evaluations(layout.evaluations, damaged),
        "outputs": _outputs(layout),
        "damaged": damaged,
    }


def describe_checkpoints(checkpoints: Path) -> list[dict[str, Any]]:
    """Return every checkpoint, oldest first, with a check that costs nothing: manifest and sizes, no digests.

    Each has ``name``, ``step``, ``kind``, ``bytes``, ``latest``, ``best``, ``state`` (``whole`` or ``damaged``) and
    ``fault``.
    """
    found = list_checkpoints(checkpoints)
    latest = read_pointer(checkpoints, "latest")
    best = read_pointer(checkpoints, "best") if is_validated(found) else None
    described = []
    for step, directory in found:
        kind, total, fault = _glance(directory)
        described.append(
            {
                "name": directory.name,
                "step": step,
                "kind": kind,
                "bytes": total,
                "latest": directory == latest,
                "best": directory == best,
                "state": WHOLE if fault is None else DAMAGED,
                "fault": fault,
            }
        )
    return described


def _glance(directory: Path) -> tuple[str | None, int, str | None]:
    """Return kind, size and the first fault of a checkpoint, by its manifest and the sizes of its files."""
    sizes = {
        file.relative_to(directory).as_posix(): file.stat().st_size for file in directory.rglob("*") if file.is_file()
    }
    total = sum(sizes.values())
    try:
        manifest = read_manifest(directory)
    except CheckpointError as error:
        return None, total, error.why or error.what
    named = manifest["files"]
    for name in sorted(set(named) | set(sizes) - {MANIFEST_NAME}):
        if name not in sizes:
            return manifest.get("kind"), total, f"{name} is missing"
        if name not in named:
            return manifest.get("kind"), total, f"{name} is not in the manifest"
        if _mapping(named[name]).get("bytes") != sizes[name]:
            return manifest.get("kind"), total, f"{name} has another size than its manifest says"
    return manifest.get("kind"), total, None


def _config(layout: RunLayout, provenance: dict[str, Any]) -> dict[str, Any]:
    recorded = provenance.get("config_digest")
    current = file_digest(layout.config) if layout.config.is_file() else None
    return {"digest": recorded, "unchanged": None if recorded is None else current == recorded}


def _base_model(provenance: dict[str, Any]) -> dict[str, Any]:
    base, compute = _mapping(provenance.get("base_model")), _mapping(provenance.get("compute"))
    return {
        "name": base.get("name"),
        "revision": base.get("revision"),
        "digest": compute.get("base_model_digest"),
        "tokenizer_digest": compute.get("tokenizer_digest"),
    }


def _data(provenance: dict[str, Any]) -> dict[str, Any]:
    splits = _mapping(_mapping(provenance.get("data")).get("splits"))
    return {
        name: {
            "file": _file_names(_mapping(split)),
            "records": _mapping(split).get("records"),
            "digest": _mapping(split).get("digest"),
        }
        for name, split in splits.items()
    }


def _file_names(split: dict[str, Any]) -> str | None:
    """Return what the file behind a split is called, or all of them."""
    parts = split.get("parts")
    sources = [_mapping(part).get("source") for part in parts] if isinstance(parts, list) else [split.get("source")]
    names = [str(name) for source in sources if (name := _mapping(source).get("name")) is not None]
    return ", ".join(names) or None


def _evaluations(directory: Path, damaged: list[str]) -> list[dict[str, Any]]:
    found = []
    for file in sorted(directory.glob("*/results.json")):
        # A name that begins with a point is an evaluation that is being written, or was replaced.
        if file.parent.name.startswith("."):
            continue
        results = _read(file, damaged)
        if results:
            metrics = _mapping(results.get("metrics"))
            found.append(
                {
                    "checkpoint": results.get("checkpoint"),
                    "split": results.get("split"),
                    "records_scored": results.get("records_scored"),
                    "metrics": {name: _mapping(metric).get("value") for name, metric in metrics.items()},
                }
            )
    return found


def _outputs(layout: RunLayout) -> list[dict[str, Any]]:
    """Return the files of the run's own directory with their sizes; checkpoints and evaluations are listed apart."""
    files = (path for path in sorted(layout.directory.iterdir()) if path.is_file() and path != layout.lock)
    return [{"name": file.name, "bytes": file.stat().st_size} for file in files]


def _read(path: Path, damaged: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file; a file that is not there is empty, one that is damaged is noted."""
    try:
        value = read_json(path, MAX_MEMBERSHIP_BYTES, follow_links=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        damaged.append(f"{path.name}: {error}")
        return {}
    return _mapping(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_ABSENT = "-"


def render_details(details: dict[str, Any]) -> str:
    """Return the text of `runs show` for what `describe_run` gathered."""
    record, config, base, safety = (details[key] for key in ("record", "config", "base_model", "safety"))
    changed = "" if config["unchanged"] in (True, None) else "  (config.yaml was changed since)"
    name = f"{base['name']} @ {base['revision']}" if base["revision"] else base["name"]
    lines = [
        f"directory   {details['directory']}",
        f"name        {record['name']}  (run id {record['run_id']})",
        f"status      {_status(record)}",
        f"started     {record['started']}",
        f"steps       {_text(details['steps'])}",
        f"best        {_text(details['best_validation_loss'])}  (validation loss)",
        f"config      {_text(config['digest'])}{changed}",
        f"base model  {_text(base['digest'])}  ({_text(name)})",
        f"tokenizer   {_text(base['tokenizer_digest'])}",
        *(_data_line(split, data) for split, data in details["data"].items()),
        f"safety      {_text(safety.get('policy_digest'))}  ({_safety(safety)})",
    ]
    described = [_checkpoint(item) for item in details["checkpoints"]]
    if (
        described
        and details["best_validation_loss"] is None
        and not any(item["best"] for item in details["checkpoints"])
    ):
        described.append("best: none validated yet")
    lines += _section("checkpoints (sizes checked, digests not)", described)
    lines += _section("evaluations", [_evaluation(item) for item in details["evaluations"]])
    lines += _section("files", [f"{item['name']}  {item['bytes']:,} bytes" for item in details["outputs"]])
    if details["damaged"]:
        lines += _section("damaged", details["damaged"])
    # A name from elsewhere may hold line ends, which would begin lines of their own.
    return "\n".join(map(visible_name, lines))


def _status(record: dict[str, Any]) -> str:
    if record["ended"]:
        return f"{record['status']} at {record['ended']}"
    if record["found_dead"] and record["status"] == "KILLED":
        return (
            f"{record['status']}, when is unknown: last file written {record['last_sign_of_life']}, "
            f"found dead {record['found_dead']}"
        )
    return str(record["status"])


def _safety(safety: dict[str, Any]) -> str:
    if not safety:
        return _ABSENT
    if safety.get("enabled"):
        return f"policy {safety.get('policy')}, on"
    recorded = safety.get("bypasses")
    bypasses = [item for item in recorded if isinstance(item, dict)] if isinstance(recorded, list) else []
    people = ", ".join(f"{item.get('who')} at {item.get('when')}" for item in bypasses)
    return f"policy {safety.get('policy')}, OFF: {safety.get('bypass_reason')}" + (f"; by {people}" if people else "")


def _data_line(split: str, data: dict[str, Any]) -> str:
    label = f"data {split}"
    return f"{label:<11} {_text(data['digest'])}  ({_text(data['records'])} records of {_text(data['file'])})"


def _checkpoint(item: dict[str, Any]) -> str:
    marks = [mark for mark in ("latest", "best") if item[mark]]
    state = item["state"] if item["fault"] is None else f"{item['state']}: {item['fault']}"
    tail = f"  {', '.join(marks)}" if marks else ""
    return f"{item['name']}  {item['bytes']:,} bytes  {state}{tail}"


def _evaluation(item: dict[str, Any]) -> str:
    metrics = "  ".join(f"{name} {_number(value)}" for name, value in item["metrics"].items())
    return f"{item['checkpoint']} on {item['split']} ({item['records_scored']} records)  {metrics}"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines or [_ABSENT])]


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else _ABSENT


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return _ABSENT if value is None else str(value)
