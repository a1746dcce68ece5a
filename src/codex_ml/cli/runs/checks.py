"""`codex-ml runs verify` and `runs reproduce`: compute again what a run wrote down, and the run itself."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.options import AsJson, OutputDirectory, RunReference, runs_directory
from codex_ml.errors import UserError
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from codex_ml.recipes.verify.inputs import Moved

ModelDirectory = Annotated[
    Path | None, typer.Option("--model", metavar="DIR", help="Current directory of the base model, if it was moved.")
]
TokenizerDirectory = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="DIR", help="Current directory of the tokenizer of a preset.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="Current path of your own safety policy.")
]
DataFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="FILE|SPLIT=FILE",
        help=(
            "Current path of the data: FILE for data.path, or train=FILE, valid=FILE, test=FILE, "
            "files.NAME=FILE; repeatable."
        ),
        show_default=False,
    ),
]
Allowed = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="KEY,…",
        help="Checks that may differ or be skipped, such as versions,code or base_model.",
        show_default=False,
    ),
]


def verify_command(
    run: RunReference,
    output_dir: OutputDirectory = None,
    model: ModelDirectory = None,
    tokenizer: TokenizerDirectory = None,
    data: DataFiles = None,
    policy: PolicyFile = None,
    allow: Allowed = None,
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="[sha256:]HEX", help="Expected digest of the run manifest, kept elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read everything again that a run's provenance names, and say line by line what agrees; exit 2 if not all does."""
    with STOP.deferred():
        from codex_ml.recipes.verify.run import require_passed, verify_run
        from codex_ml.runs.layout import resolve_run
    STOP.check()
    layout = resolve_run(run, runs_directory(output_dir))
    verified = verify_run(layout, moved(model, tokenizer, data, policy), keys(allow), given_digest(digest))
    report = verified.verification
    if as_json:
        print_json(report.to_json())
    else:
        print_results(report.lines())
    require_passed(report)


def reproduce_command(
    run: RunReference,
    into: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="Parent directory of the new run.", show_default=False)
    ],
    output_dir: OutputDirectory = None,
    model: ModelDirectory = None,
    tokenizer: TokenizerDirectory = None,
    data: DataFiles = None,
    policy: PolicyFile = None,
    allow: Allowed = None,
    as_json: AsJson = False,
) -> None:
    """Train a run again from what it wrote down, and compare weights bit for bit and metrics; exit 2 if not identical.

    What it was made of is verified first. Other code, versions and machines are reported, not refused.
    """
    with STOP.deferred():
        from codex_ml.recipes.verify.environment import REPORTED_ONLY, repeat_environment
        from codex_ml.recipes.verify.run import require_passed, verify_run
        from codex_ml.runs.layout import resolve_run
    STOP.check()
    layout = resolve_run(run, runs_directory(output_dir))
    verified = verify_run(layout, moved(model, tokenizer, data, policy), [*keys(allow), *REPORTED_ONLY])
    require_passed(verified.verification)
    repeat_environment(verified.provenance, os.environ)

    # Only now, with the variables set that it reads, and with a run that can be repeated: this import takes seconds.
    with STOP.deferred():
        from codex_ml.recipes.reproduce import reproduce, require_identical
    STOP.check()

    result = reproduce(verified, into)
    if as_json:
        print_json(result.to_json())
    else:
        print_results(result.lines())
    require_identical(result)


def moved(model: Path | None, tokenizer: Path | None, data: Sequence[str] | None, policy: Path | None) -> Moved:
    """Return what the options say of inputs that were moved.

    Raises
    ------
    UserError
        If two options name one file.
    """
    from codex_ml.recipes.verify.inputs import DATA_KEYS, Moved

    files: dict[str, Path] = {}
    for text in data or ():
        key, equals, name = text.partition("=")
        # A path may hold an equals sign itself.
        key, name = (key, name) if equals and (key in DATA_KEYS or key.startswith("files.")) else ("path", text)
        if key in files:
            raise UserError(
                f"--data: {key} is given twice",
                fix="name each file once, such as --data train=FILE",
                code="CLI_OPTION_REPEATED",
            )
        files[key] = Path(name)
    return Moved(model, tokenizer, policy, files)


def given_digest(text: str | None) -> str | None:
    """Return a digest as runs write it, from what was typed: with ``sha256:`` in front, or the 64 digits alone.

    Raises
    ------
    UserError
        If it is neither.
    """
    if text is None:
        return None
    digits = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise UserError(
            f"--digest {text!r} is no SHA-256 digest",
            why="it is not sha256: with 64 hexadecimal digits, nor these alone",
            fix="give the whole digest, as the last line of a verification shows it (run manifest: sha256:…)",
            code="CLI_OPTION_VALUE",
        )
    return f"sha256:{digits}"


def keys(allowed: Sequence[str] | None) -> list[str]:
    """Return the single keys of options that list several with commas."""
    return [key.strip() for text in allowed or () for key in text.split(",") if key.strip()]
