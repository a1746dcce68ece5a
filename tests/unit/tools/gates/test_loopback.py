"""Without a command there is nothing to become."""

from __future__ import annotations

import pytest

from gates.loopback import bring_up, main


def test_main_without_a_command_fails() -> None:
    """An empty command is no success."""
    assert main([]) == 2


def test_bring_up_unknown_interface_raises() -> None:
    """The kernel's answer is passed on."""
    with pytest.raises(OSError, match="device"):
        bring_up("codex-none")
