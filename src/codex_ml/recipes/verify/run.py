"""The job of `runs verify`: every digest of a run, computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import UserError
from codex_ml.io.atomic import file_digest
from codex_ml.io.stopping import STOP
from codex_ml.io.untrusted import read_json
from codex_ml.monitoring.codex_logging import ndjson_files, read_ndjson
from codex_ml.recipes.train.run_files import bypasses_in, findings_by_rule
from codex_ml.recipes.verify.data import check_account, check_data
from codex_ml.recipes.verify.environment import check_environment
from codex_ml.recipes.verify.inputs import (
    DigestOnce,
    Moved,
    check_base_model,
    check_compute,
    check_config,
    check_safety,
    read_provenance,
    without_provenance,
)
from codex_ml.runs.checkpoints import ABANDONED_PREFIX, GIVEN_UP, list_checkpoints
from codex_ml.runs.directory_checks import check_checkpoints, check_record
from codex_ml.runs.layout import TRAINER_STATE_NAME, RunLayout, RunRecord, read_record
from codex_ml.runs.lock import is_locked
from codex_ml.runs.run_manifest import check_run_manifest, manifest_path
from codex_ml.runs.verification import Check, Verification, allow, compare, is_below, mapping
from codex_ml.tracking.provenance import ProvenanceDependencies


def damaged_when_set_aside(layout: RunLayout) -> dict[str, str]:
    """Return what a run found wrong with checkpoints that it passed over and set aside, by ``abandoned-…/step-…``.

    A step may be set aside more than once: what a process says that it passed over is what it had just moved.
    """
    found: dict[str, str] = {}
    # Of one process; which of the two it says first does not matter.
    moved: list[str] = []
    reasons: dict[str, str] = {}
    try:
        for event in read_ndjson(layout.events):
            kind, reason, places = event.get("kind"), event.get("reason"), event.get("checkpoints")
            if kind == "run_started":
                moved, reasons = [], {}
            elif kind == "checkpoints_set_aside" and isinstance(places, list):
                moved = [place for place in places if isinstance(place, str)]
            elif kind == "checkpoint_passed_over" and isinstance(reason, str) and not reason.startswith(GIVEN_UP):
                reasons[str(event.get("checkpoint"))] = reason
            found |= {place: reasons[name] for place in moved if (name := place.rpartition("/")[2]) in reasons}
    except (UserError, OSError):
        # That the log is damaged is said of the log; what could be read of it counts.
        return found
    return found


_SHOWN_LINES = 3
_ASIDE = f"checkpoints/{ABANDONED_PREFIX}"


@dataclass(frozen=True)
class VerifyDependencies:
    """What a verification uses of the outside world; tests pass others."""

    environment: ProvenanceDependencies = field(default_factory=ProvenanceDependencies)
    digest: Callable[[Path], str] = file_digest


@dataclass(frozen=True)
class VerifiedRun:
    """A verification, and what it read on the way: `runs reproduce` goes on from there.

    Attributes
    ----------
    config : TrainConfig, optional
        Of the run, with the places of inputs as they are now; None where ``config.yaml`` cannot be used.
    """

    layout: RunLayout
    record: RunRecord
    provenance: dict[str, Any]
    config: TrainConfig | None
    verification: Verification


def verify_run(
    layout: RunLayout,
    moved: Moved | None = None,
    allowed: Sequence[str] = (),
    expected_digest: str | None = None,
    dependencies: VerifyDependencies | None = None,
) -> VerifiedRun:
    """Compute again every digest that a run wrote down, and say of each thing whether it agrees.

    Parameters
    ----------
    layout : RunLayout
        The run; nothing in it is changed.
    moved : Moved, optional
        Where inputs lie that were moved.
    allowed : sequence of str
        Keys that may differ or stay unchecked.
    expected_digest : str, optional
        Digest of the run manifest, as somebody kept it apart from the run.

    Raises
    ------
    UserError
        If the directory is no training run, a process is at work in it, or an option names nothing.
    """
    dependencies = dependencies or VerifyDependencies()
    record = read_record(layout, any_files=True)
    if is_locked(layout.lock):
        raise UserError(
            f"the run {layout.directory.name} is in progress", why="its lock is held", fix="verify it when it has ended"
        )
    values = (moved or Moved()).config_values()
    provenance, checks = read_provenance(layout)
    checks += check_record(layout, record, provenance)
    config, of_config = check_config(layout, provenance, values)
    checks += of_config
    STOP.check()
    if config is not None:
        checks += check_base_model(config, provenance, DigestOnce(dependencies.digest))
        checks += check_safety(config, provenance)
    else:
        checks += [Check(key, "unchecked", note="config.yaml cannot be used") for key in ("base_model", "safety")]
    STOP.check()
    checks += check_data(config.data if config is not None else None, layout, provenance)
    # A run that failed may have counted steps after its last checkpoint.
    checks += check_account(layout, provenance, _newest_state(layout) if record.status == "FINISHED" else {})
    checks += check_environment(provenance, dependencies.environment)
    checks += check_compute(provenance, checks)
    STOP.check()
    checks += check_checkpoints(layout, record, provenance, damaged_when_set_aside(layout))
    checks += _check_logs(layout, record, provenance)
    manifest_digest = file_digest(manifest_path(layout)) if manifest_path(layout).is_file() else None
    checks += check_run_manifest(layout, record)
    if expected_digest is not None:
        checks.append(compare("run manifest", expected_digest, manifest_digest, "as given with --digest"))
    checks += _leftovers(layout, provenance, checks)
    if not provenance:
        checks = without_provenance(checks)
    verification = Verification(str(layout.directory), record.run_id, allow(checks, allowed), manifest_digest)
    return VerifiedRun(layout, record, provenance, config, verification)


def require_passed(verification: Verification) -> None:
    """Stop when a verification was not passed.

    Raises
    ------
    UserError
        With how much stands against the run, and the first of it.
    """
    failing = verification.failing()
    if not failing:
        return
    name = Path(verification.directory).name
    first = "; ".join(check.line() for check in failing[:_SHOWN_LINES])
    more = " …" if len(failing) > _SHOWN_LINES else ""
    why = f"{len(failing)} of {len(verification.checks)} checks: {first}{more}"
    if all(check.state == "unchecked" for check in failing):
        raise UserError(
            f"the run {name} could not be checked completely",
            why=f"nothing differs and nothing is missing, but {why}",
            fix="name what was moved with --model, --tokenizer, --data or --policy; excuse what cannot be checked here "
            f"with --allow KEY: --allow {','.join(dict.fromkeys(check.key.partition('.')[0] for check in failing))}",
        )
    fix = "restore what differs; name what was moved with --model, --tokenizer, --data or --policy; excuse what may "
    fix += "differ with --allow KEY, such as --allow versions,code"
    aside = [check.key for check in failing if check.key.startswith(_ASIDE)]
    if whole := [key for key in aside if not any(is_below(key, other) for other in aside if other != key)]:
        fix += f"; checkpoints that were set aside and are needed no longer with --allow {','.join(whole)}"
    raise UserError(f"the run {name} fails its verification", why=why, fix=fix)


def _newest_state(layout: RunLayout) -> dict[str, Any]:
    """Return the counters of the newest checkpoint; empty where there is none, or it cannot be read."""
    for _, directory in reversed(list_checkpoints(layout.checkpoints)):
        try:
            return mapping(mapping(read_json(directory / TRAINER_STATE_NAME, follow_links=False)).get("trainer"))
        except (OSError, ValueError):
            return {}
    return {}


def _check_logs(layout: RunLayout, record: RunRecord, provenance: Mapping[str, Any]) -> list[Check]:
    return [
        _check_log(layout.metrics, record, _check_metric_order),
        _check_log(layout.events, record, lambda events: _check_findings(events, provenance)),
    ]


def _check_log(path: Path, record: RunRecord, judge: Callable[[list[dict[str, Any]]], str | None]) -> Check:
    """Read every line of a log: each is a JSON object of this run, and together they make sense."""
    if not ndjson_files(path):
        return Check(path.name, "missing", note="no line was ever written, or the file was taken away")
    try:
        lines = list(read_ndjson(path))
    except (UserError, OSError) as error:
        return Check(path.name, "differs", note=str(error))
    foreign = sum(line.get("run_id") != record.run_id for line in lines)
    fault = f"{foreign} lines of another run" if foreign else judge(lines)
    if fault is not None:
        return Check(path.name, "differs", note=fault)
    return Check(path.name, "agrees", note=f"{len(lines)} lines of this run")


def _check_metric_order(lines: list[dict[str, Any]]) -> str | None:
    seen: set[tuple[str, ...]] = set()
    for line in lines:
        place = tuple(str(line.get(name)) for name in ("step", "split", "name"))
        if place in seen:
            return f"step {place[0]} has {place[2]} of {place[1]} twice"
        seen.add(place)
    steps = [line["step"] for line in lines if isinstance(line.get("step"), int)]
    return None if steps == sorted(steps) else "its steps do not follow one another"


def _check_findings(events: list[dict[str, Any]], provenance: Mapping[str, Any]) -> str | None:
    """Hold the safety findings that provenance counts against the events, which name each."""
    if not provenance:
        return None
    counted = findings_by_rule(events)
    recorded = mapping(mapping(provenance.get("safety")).get("findings_by_rule"))
    if counted != recorded:
        return f"it names findings {counted}, provenance.json {recorded}"
    off, recorded_off = bypasses_in(events), mapping(provenance.get("safety")).get("bypasses")
    return None if off == recorded_off else f"it names {len(off)} bypasses of the filters, provenance.json others"


def _leftovers(layout: RunLayout, provenance: Mapping[str, Any], checks: Sequence[Check]) -> list[Check]:
    """Name what was recorded and looked at by nothing above, so that nothing is passed over in silence."""
    covered = {check.key for check in checks} | {"safety.findings_by_rule"}
    unknown = [key for key in _leaves(provenance) if not any(is_below(key, known) for known in covered)]
    note = "this codex-ml does not know what to hold it against"
    found = [Check(key, "unchecked", note=note) for key in unknown]
    if layout.evaluations.is_dir():
        note = "evaluations are made later, and hold digests of what they scored; codex-ml evaluate makes them again"
        found.append(Check("eval", "noted", note=note))
    return found


def _leaves(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key
