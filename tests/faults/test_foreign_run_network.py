"""A run from another user with `offline: false` does not lift the network guard of a command that reads it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_foreign_run_with_the_network_is_read_offline_by_every_command(train_here, command_line):
    """evaluate, generate and serve warn that they ignore it; `offline=false` of the user is announced."""
    run = train_here("offline=false", "training.max_steps=1").directory
    place = train_here.working_directory
    evaluated = command_line.run("evaluate", "--checkpoint", str(run), "--dry-run", directory=place)
    assert evaluated.returncode == 0, evaluated.stderr
    (line,) = [line for line in evaluated.stdout.splitlines() if line.startswith("offline:")]
    assert line.split("#")[0].strip() == "offline: true"
    assert "offline: false in" in evaluated.stderr
    assert "is not taken over" in evaluated.stderr
    asked = command_line.run("evaluate", "--checkpoint", str(run), "--dry-run", "offline=false", directory=place)
    assert "warning: offline: false (command line): connections to other machines are allowed" in asked.stderr
    generated = command_line.run("generate", "--checkpoint", str(run), "--prompt", "What?", directory=place)
    assert generated.returncode == 0, generated.stderr
    assert "is not taken over" in generated.stderr
    assert "are allowed" not in generated.stderr
    # A model name that cannot be served ends the command after it has read the config.
    served = command_line.run("serve", "--adapter", f"base={run}", "serve.port=0", directory=place)
    assert served.returncode == 2, served.stderr
    assert "is not taken over" in served.stderr
