"""`codex-ml generate`: one prompt, a file of prompts, or a conversation, answered by a checkpoint or a base model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codex_ml.cli.boundary import print_piece, print_results, run_command
from codex_ml.cli.options import ConfigDirectory, ConfigName, Overrides
from codex_ml.errors import ConfigError, UserError
from codex_ml.io.stopping import STOP
from codex_ml.io.terminal import write_message
from codex_ml.recipes.checkpoint_config import compose_for, output_dir, run_name, warn_of_targets, with_hint
from codex_ml.recipes.network import lift_guard_if_asked

if TYPE_CHECKING:
    from codex_ml.config.schema.root import GenerateConfig
    from codex_ml.runs.listing import Target

_EPILOG = """\
Examples:\n
  codex-ml generate --prompt 'Once upon a time'\n
  codex-ml generate --checkpoint best --input prompts.jsonl --output answers.jsonl\n
  codex-ml generate --chat --temperature 0.7 --top-p 0.9\n
  codex-ml generate --model models/base --prompt - < prompt.txt\n
"""


@dataclass(frozen=True)
class _Job:
    """What is to be answered."""

    prompt: str | None
    source: Path | None
    output: Path | None
    chat: bool
    system: str | None
    overwrite: bool


def generate(
    overrides: Overrides = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="PATH|RUN|latest|best|base",
            help="Checkpoint to use (default: best of the newest run).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Base model directory to use instead of a checkpoint.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT|-", help="Prompt to answer; - reads it from standard input.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="PATH", help="File of prompts to answer (prompt, messages or instruction)."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="PATH", help="Output file; a report is written next to it."),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help=("Interactive chat: one line per turn, /reset clears the conversation, end of input exits.")
        ),
    ] = False,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt for --chat.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", help="Maximum answer length in tokens (generation.max_new_tokens)."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Sampling temperature; 0: greedy decoding (generation.temperature)."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", help="Sample from the k most likely tokens (generation.top_k).")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Nucleus (top-p) sampling threshold (generation.top_p).")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="Stop string; repeatable (generation.stop)."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Random seed (generation.seed).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing output.")] = False,
    config_name: ConfigName = None,
    config_dir: ConfigDirectory = None,
    runs: Annotated[
        Path | None,
        typer.Option("--output-dir", metavar="DIR", help="Parent directory of run directories (run.output_dir)."),
    ] = None,
) -> None:
    """Generate text from a trained checkpoint or a base model, with the safety filters on both sides."""
    given: dict[str, Any] = {
        "generation.max_new_tokens": max_new_tokens,
        "generation.temperature": temperature,
        "generation.top_k": top_k,
        "generation.top_p": top_p,
        "generation.stop": stop or None,
        "generation.seed": seed,
        "model.path": model,
        "run.output_dir": runs,
    }
    values = {key: value for key, value in given.items() if value is not None}
    job = _Job(prompt, source, output, chat, system, overwrite)
    run_command(lambda: _generate(overrides or [], job, checkpoint, config_name, config_dir, values))


generate.__doc__ = f"{generate.__doc__}\n\n{_EPILOG}"


def _generate(
    overrides: list[str],
    job: _Job,
    checkpoint: str | None,
    config_name: str | None,
    config_dir: Path | None,
    values: dict[str, Any],
) -> int:
    _refuse_unclear(job)
    if checkpoint is not None and "model.path" in values:
        raise UserError(
            "--checkpoint and --model both say what answers",
            fix="leave one out; --checkpoint base model.path=DIR is the same as --model DIR",
            code="CLI_OPTIONS_CONFLICT",
        )
    reference = checkpoint or ("base" if "model.path" in values else "best")
    config, target = _resolve(overrides, reference, config_name, config_dir, values)
    if job.source is not None and job.output is not None:
        return _answer_file(config, target, job.source, job.output, job.overwrite)
    return _answer_here(config, target, job)


def _resolve(
    overrides: list[str], reference: str, config_name: str | None, config_dir: Path | None, values: dict[str, Any]
) -> tuple[GenerateConfig, Target]:
    """Return the validated config and the verified checkpoint."""
    from codex_ml.config.paths import check_paths
    from codex_ml.config.validate import validate_generate
    from codex_ml.models.source import check_source
    from codex_ml.runs.listing import resolve_targets

    composed, moved = compose_for("generate", overrides, [reference], config_name, config_dir, values)
    try:
        config = validate_generate(composed)
    except ConfigError as error:
        hinted = with_hint(error, moved)
        if hinted is error:
            raise
        raise hinted from error
    check_paths(config, with_data=False)
    check_source(config.model)
    lift_guard_if_asked(config, composed)
    (target,) = resolve_targets([reference], output_dir(config), run_name(composed, config_name))
    warn_of_targets([target])
    return config, target


def _answer_file(config: GenerateConfig, target: Target, source: Path, output: Path, overwrite: bool) -> int:
    with STOP.deferred():
        from codex_ml.recipes.answering import GenerateDependencies, open_answerer
        from codex_ml.recipes.generate import AnswerFile, answer_file, check_answer_file
    STOP.check()

    files = check_answer_file(AnswerFile(source, output, overwrite))
    dependencies = GenerateDependencies()
    with open_answerer(config, target, dependencies) as answerer:
        report = answer_file(answerer, files, dependencies)
    rows, reasons = report["rows"], report["finish_reasons"]
    print_results(
        [
            f"{source.name}: {rows['answered']:,} prompts answered, {report['generated_tokens']:,} tokens generated "
            f"({', '.join(f'{name} {count:,}' for name, count in reasons.items()) or 'none'})",
            f"changed by the safety policy: {rows['prompts_redacted']:,} prompts, {rows['texts_redacted']:,} answers",
            f"report: {files.report}",
            f"outputs: {files.output}",
        ]
    )
    return 0


def _answer_here(config: GenerateConfig, target: Target, job: _Job) -> int:
    with STOP.deferred():
        from codex_ml.recipes.answering import GenerateDependencies, open_answerer, require_template
        from codex_ml.recipes.generate import answer_prompt, hold_conversation
    STOP.check()

    prompt = sys.stdin.read() if job.prompt == "-" else job.prompt
    dependencies = GenerateDependencies()
    with open_answerer(config, target, dependencies) as answerer:
        if job.chat:
            require_template(answerer)
            turns = _typed_turns() if prompt is None else iter([prompt])
            hold_conversation(answerer, turns, print_piece, dependencies.emit, system=job.system)
        else:
            assert prompt is not None, "one of the three was given"
            answer_prompt(answerer, prompt, print_piece, dependencies.emit)
        if answerer.log.path is not None:
            dependencies.emit(f"what the safety policy found is noted in {answerer.log.path}")
    return 0


def _typed_turns() -> Iterator[str]:
    """Yield what is typed, a line each; a terminal is asked for it."""
    while True:
        if sys.stdin.isatty():
            write_message("> ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        yield line.removesuffix("\n")


def _refuse_unclear(job: _Job) -> None:
    """Stop when it is not clear what is to be answered.

    Raises
    ------
    UserError
        If there is nothing or too much of it, or an option that would do nothing.
    """
    ways = [name for name, is_given in (("--input", job.source), ("--prompt or --chat", _speaks(job))) if is_given]
    if len(ways) != 1:
        raise UserError(
            "it is not clear what is to be answered" if ways else "nothing is given to be answered",
            why=f"{' and '.join(ways)} are given" if ways else "",
            fix="use --prompt TEXT, --chat, or --input PATH with --output PATH",
            code="CLI_OPTIONS_CONFLICT",
        )
    if (job.source is None) != (job.output is None):
        missing, given = ("--output", "--input") if job.output is None else ("--input", "--output")
        raise UserError(f"{given} needs {missing}", fix=f"add {missing} PATH", code="CLI_OPTION_MISSING")
    if job.system is not None and not job.chat:
        raise UserError(
            "--system has no effect without --chat", fix="add --chat, or leave it out", code="CLI_OPTION_WITHOUT_EFFECT"
        )
    if job.overwrite and job.output is None:
        raise UserError(
            "--overwrite has no effect without --output", fix="leave it out", code="CLI_OPTION_WITHOUT_EFFECT"
        )


def _speaks(job: _Job) -> bool:
    return job.prompt is not None or job.chat
