"""Lifts the network guard where the user asks for that in this very command, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from codex_ml.io.terminal import write_message
from codex_ml.offline import GUARD, NetworkGuard, allow_hub

if TYPE_CHECKING:
    from codex_ml.config.compose import Composed
    from codex_ml.config.schema.root import RunConfig


def without_recorded_network(composed: Composed, emit: Callable[[str], None] = write_message) -> Composed:
    """Return the config of a recorded run with ``offline: true``, unless the user asks for the network now.

    The config of a run may come from another person, who must not decide what this machine connects to.
    """
    from codex_ml.config.overrides import COMMAND_LINE, ENVIRONMENT_OVERRIDES

    if composed.values.get("offline", True) is True:
        return composed
    if composed.origins.get("offline") in (COMMAND_LINE, ENVIRONMENT_OVERRIDES):
        return composed
    emit(
        f"warning: offline: false in {composed.origins.get('offline')} is not taken over; "
        "give offline=false to allow connections to other machines"
    )
    origin = "a recorded run does not lift the network guard"
    return replace(
        composed,
        values={**composed.values, "offline": True},
        origins={**composed.origins, "offline": origin},
    )


def lift_guard_if_asked(
    config: RunConfig,
    composed: Composed,
    guard: NetworkGuard = GUARD,
    emit: Callable[[str], None] = write_message,
    turn_switches_off: Callable[[], None] = allow_hub,
) -> None:
    """Allow connections to other machines where the config of this command says ``offline: false``, and say so."""
    if config.offline:
        return
    guard.deactivate()
    turn_switches_off()
    emit(f"warning: offline: false ({composed.origins.get('offline')}): connections to other machines are allowed")
