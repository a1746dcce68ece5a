"""The description of a run as people read it."""

from __future__ import annotations

from typing import Any

from codex_ml.terminal import visible_name

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
