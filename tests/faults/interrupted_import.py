"""Run a command line that gets SIGTERM during the import of one module, and abort if the handler raises there.

Arguments: the name of the module, then the arguments of the command. A native module that calls Python code while it
loads ends the process in the same way, because an exception cannot pass through its C++ code.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.machinery import ModuleSpec


class InterruptedFinder:
    """Finder that sends SIGTERM to this process at the first import of a module."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._is_sent = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return None, so that the next finder finds the module."""
        if name == self._module and not self._is_sent:
            self._is_sent = True
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                # The handler runs between two bytecode instructions, so the loop provides some.
                for _ in range(100):
                    pass
            except BaseException:  # noqa: BLE001 - whatever the handler raises
                os.abort()
        return None


def main() -> None:
    """Install the finder and run the command line."""
    sys.meta_path.insert(0, InterruptedFinder(sys.argv.pop(1)))  # type: ignore[arg-type]

    from codex_ml.cli.main import run

    run()


if __name__ == "__main__":
    main()
