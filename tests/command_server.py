"""Runs command lines in children of one process that has already imported the libraries.

A child is a process of its own, like a user's, without the seconds that the imports take. Started as a program: reads
one order a line as JSON from standard input (``arguments``, ``directory``, ``environment``, ``stdout``, ``stderr``,
``isolated``) and answers each with the exit code.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

# The kernel ends a command that hangs; its exit code is then that of SIGALRM.
_LIMIT_SECONDS = 500
_NEW_NETWORK = 0x40000000


def become(order: dict[str, Any]) -> None:
    """Turn this process into the one that an order describes."""
    signal.alarm(_LIMIT_SECONDS)
    os.environ.clear()
    os.environ.update(order["environment"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, name, how in ((0, os.devnull, os.O_RDONLY), (1, order["stdout"], flags), (2, order["stderr"], flags)):
        file = os.open(name, how, 0o600)
        os.dup2(file, number)
        os.close(file)
    if order["isolated"] and ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "cannot create a network namespace")
    os.chdir(order["directory"])
    sys.argv = ["codex-ml", *order["arguments"]]


def run_and_leave(run: Callable[[], None]) -> None:
    """Run the command line, then do what an interpreter does at its end, except for freeing its objects.

    Freeing them takes over a second, because every page that is touched must be copied first.
    """
    code = 1
    try:
        run()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 - the child must never continue in the loop of its parent
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer orders until standard input ends; only children leave the loop otherwise."""
    from codex_ml.offline import go_offline

    go_offline()
    import torch

    torch.set_num_threads(1)
    # Imported for their effect: everything that the commands need is in memory before the first child.
    import codex_ml.recipes.evaluate
    import codex_ml.recipes.generate
    import codex_ml.recipes.train.job  # noqa: F401
    from codex_ml.cli.main import run
    from codex_ml.safety.filters import SafetyFilters
    from codex_ml.safety.policy import load_policy

    # Compiles the patterns of the default policy.
    SafetyFilters(load_policy("default"))
    gc.collect()
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            run_and_leave(run)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
    main()
