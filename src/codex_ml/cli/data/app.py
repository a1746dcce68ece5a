"""`codex-ml data`: what is done to records before a run; each command in a file of its own, named after it."""

from __future__ import annotations

import typer

from codex_ml.cli.boundary import guarded
from codex_ml.cli.data.cache import cache_app
from codex_ml.cli.data.manifest import manifest
from codex_ml.cli.data.prepare import prepare
from codex_ml.cli.data.preview import preview
from codex_ml.cli.data.redact import redact
from codex_ml.cli.data.split import split
from codex_ml.cli.data.stats import stats
from codex_ml.cli.data.validate import validate

data_app = typer.Typer(
    help="Inspect, validate, redact, split and prepare data files.", rich_markup_mode=None, no_args_is_help=True
)


@data_app.callback()
def _group() -> None:
    # Without a callback Typer makes an application of one command into that command.
    """Inspect, validate, redact, split and prepare data files."""


data_app.command("prepare")(guarded(prepare))
data_app.command("validate")(guarded(validate))
data_app.command("split")(guarded(split))
data_app.command("redact")(guarded(redact))
data_app.command("stats")(guarded(stats))
data_app.command("preview")(guarded(preview))
data_app.command("manifest")(guarded(manifest))
data_app.add_typer(cache_app, name="cache")
