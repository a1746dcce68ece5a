"""Makes the local MLflow store and an experiment context, logs a first event, and says how to look at it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

_FIRST_USE_SECONDS = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="init_experiment.py",
        description="Makes the local MLflow store (a SQLite file) and logs a first run into it. Works offline.",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("runs"), help="where runs are kept (default: %(default)s)"
    )
    parser.add_argument("--experiment", default="codex-ml", help="MLflow experiment (default: %(default)s)")
    parser.add_argument("--name", default="init", help="name of the first run (default: %(default)s)")
    chosen = parser.parse_args(arguments)

    from codex_ml.errors import EXIT_DONE, EXIT_RUN_FAILED, CodexError
    from codex_ml.offline import GUARD, go_offline

    go_offline()
    GUARD.activate()
    os.umask(0o077)
    try:
        return EXIT_DONE if initialise(chosen.output_dir, chosen.experiment, chosen.name) else EXIT_RUN_FAILED
    except CodexError as error:
        print(error.block(), file=sys.stderr)
        return error.exit_code


def initialise(output_directory: Path, experiment: str, name: str) -> bool:
    """Log one event through a context with the MLflow sink; tell whether MLflow took it."""
    from codex_ml.io.atomic import Storage
    from codex_ml.monitoring.codex_logging import no_redaction
    from codex_ml.runs.layout import close_record, create_run
    from codex_ml.tracking.mlflow_sink import local_store_uri
    from codex_ml.tracking.opening import check_sinks, open_experiment
    from codex_ml.tracking.sinks import RunInfo

    check_sinks(["mlflow"])
    storage = Storage()
    layout, record = create_run(output_directory, name, datetime.now(UTC), storage)
    run = RunInfo(record.run_id, name, layout.directory.name, experiment=experiment)
    context = open_experiment(
        run,
        layout.directory,
        ["mlflow"],
        # Nothing here comes from data: the records hold names given on this command line, and fixed words.
        redact=no_redaction,
        on_warning=lambda line: print(f"warning: {line}", file=sys.stderr),
        # The very first use makes every table of the store.
        close_timeout_seconds=_FIRST_USE_SECONDS,
    )
    with context:
        context.log_event("experiment_initialised", experiment=experiment)
    close_record(layout, record, "FINISHED", datetime.now(UTC), storage)
    status = context.sink_status()["mlflow"]
    print(f"run: {layout.directory}")
    if status["state"] != "closed" or status["errors"]:
        return False
    print(f"store: {output_directory / 'mlflow.db'} (MLflow run {context.tracker_run_ids()['mlflow']})")
    print(f"to look at it: mlflow ui --backend-store-uri '{local_store_uri(output_directory)}' --host 127.0.0.1")
    return True


if __name__ == "__main__":
    sys.exit(main())
