"""Finds out, for `runs verify`, which checkpoints were damaged already when their run set them aside."""

from __future__ import annotations

from codex_ml.errors import UserError
from codex_ml.monitoring.codex_logging import read_ndjson
from codex_ml.runs.checkpoints import GIVEN_UP
from codex_ml.runs.layout import RunLayout


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
