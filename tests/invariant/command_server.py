"""Runs command lines in children of one process that has imported everything and computed nothing.

Started as a program: takes one JSON object a line on standard input (``arguments``, ``directory``, ``stdout``,
``stderr``) and answers each with the exit code. A child is a process of its own, as a user's would be, without the
seconds that the imports take.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

# A command that hangs is ended by the kernel; its exit code is then that of SIGALRM.
_LIMIT_SECONDS = 120


def run_child(order: dict[str, Any]) -> int:
    """Run one command line in this process, which ends with it."""
    from codex_ml.cli.main import app

    signal.alarm(_LIMIT_SECONDS)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    os.chdir(order["directory"])
    try:
        app(order["arguments"], prog_name="codex-ml")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the border of a process: whatever it is, the test is to see it
        traceback.print_exc()
        return 70
    return 0


def main() -> None:
    """Answer orders until standard input ends."""
    from codex_ml.offline import go_offline

    go_offline()
    import torch

    torch.set_num_threads(1)
    # Imported for its effect: what a training and an evaluation need is in memory before the first child.
    import codex_ml.recipes.evaluate
    import codex_ml.recipes.train  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = run_child(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
