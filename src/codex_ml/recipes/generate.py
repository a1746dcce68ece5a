"""The job of `generate`: one prompt, a file, or a chat."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codex_ml.data.line_output import LineOutput
from codex_ml.data.problems import Problems
from codex_ml.data.readers.files import state_of
from codex_ml.data.records.chat import Message
from codex_ml.data.records.prompts import PromptFile, PromptRow
from codex_ml.data.splits.staging import staging
from codex_ml.errors import DataError, UserError
from codex_ml.generation.requests import Generation, GenerationRequest
from codex_ml.io.atomic import Storage, json_bytes
from codex_ml.io.stopping import STOP
from codex_ml.recipes.answering import Answerer, GenerateDependencies, require_template
from codex_ml.recipes.inputs import safety_summary
from codex_ml.recipes.output_files import in_real_directory, is_same_file, put_in_place, refuse_existing
from codex_ml.recipes.target_model import uses_average, weight_digests

REPORT_ENDING = ".report.json"
_TABLES = frozenset({".csv", ".tsv", ".parquet", ".arrow"})
_PROGRESS_EVERY = 10


@dataclass(frozen=True)
class AnswerFile:
    """Where answers go: the file, and its report beside it."""

    source: Path
    output: Path
    overwrite: bool = False

    @property
    def report(self) -> Path:
        """The report that belongs to the output."""
        return self.output.with_name(self.output.name + REPORT_ENDING)


def check_answer_file(files: AnswerFile) -> AnswerFile:
    """Return the files with real directories, before anything is loaded.

    Raises
    ------
    UserError
        If a file would be lost, or the output is called what it is not.
    """
    files = AnswerFile(files.source, in_real_directory(files.output), files.overwrite)
    if not files.source.is_file():
        raise UserError(
            f"--input: there is no file {files.source}",
            fix="name a file of prompts: --input PATH",
            code="FILE_NOT_FOUND",
        )
    if files.output.suffix.lower() in _TABLES:
        raise UserError(
            f"--output: {files.output.name} is the name of a table",
            why="what is written is JSON Lines, one row a line",
            fix="give it the ending .jsonl, .jsonl.gz or .jsonl.zst",
            code="OUTPUT_FORMAT_UNSUPPORTED",
        )
    if not files.output.parent.is_dir():
        raise UserError(
            f"--output: there is no directory {files.output.parent}", fix="make it first", code="FILE_NOT_FOUND"
        )
    for path in (files.output, files.report):
        if is_same_file(path, files.source):
            raise UserError(
                f"--output and --input name one file: {files.source.name}",
                fix="name another file: --output PATH",
                code="CLI_OPTIONS_CONFLICT",
            )
    refuse_existing([("--output", files.output), ("--output", files.report)], overwrite=files.overwrite)
    return files


def answer_file(answerer: Answerer, files: AnswerFile, dependencies: GenerateDependencies) -> dict[str, Any]:
    """Answer every row of a file, in its order; output and report appear whole or not at all.

    Every row is read, checked and encoded before the first is answered.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    DataError
        For all rows at once that cannot be answered, or if the file changes meanwhile.
    """
    data = answerer.config.data
    source = PromptFile(files.source, data.format, data.columns, data.max_line_bytes)
    before = state_of(files.source)
    rows, requests = _requests(source, answerer)
    dependencies.emit(f"answering {len(rows):,} prompts of {files.source.name} with {answerer.target.shown}")
    generations = answerer.generator.generate(
        requests, batch_size=answerer.config.generation.batch_size, on_progress=_Progress(dependencies)
    )
    for row, generation in zip(rows, generations, strict=True):
        answerer.note(generation, row.record_id)
    if state_of(files.source) != before:
        raise DataError(
            f"{files.source.name} changed while it was answered",
            fix="answer a copy that nothing writes to",
            code="DATA_FILE_CHANGED",
        )
    report = _report(answerer, source, generations)
    _write(files, report, _lines(answerer, rows, generations), dependencies.storage)
    return report


def row_seed(seed: int, record_id: str) -> int:
    """Return the seed of one row: equal prompts in different lines get different random numbers."""
    digest = hashlib.sha256(f"{seed}:{record_id.rpartition(':')[2]}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, dependencies: GenerateDependencies) -> None:
        self._dependencies, self._said = dependencies, 0

    def __call__(self, done: int, total: int) -> None:
        STOP.check()
        tenth = done * _PROGRESS_EVERY // total
        if tenth > self._said:
            self._said = tenth
            self._dependencies.emit(f"answered {done:,} of {total:,}")


def _requests(source: PromptFile, answerer: Answerer) -> tuple[list[PromptRow], list[GenerationRequest]]:
    problems = Problems()
    rows: list[PromptRow] = []
    requests: list[GenerationRequest] = []
    for row in source.read(problems):
        prompt = row.prompt if isinstance(row.prompt, str) else row.prompt.messages
        try:
            request = answerer.request(prompt, row_seed(answerer.config.generation.seed, row.record_id))
        except ValueError as error:
            problems.add(row.record_id, str(error))
            continue
        rows.append(row)
        requests.append(request)
    problems.raise_if_any()
    return rows, requests


def _lines(answerer: Answerer, rows: Sequence[PromptRow], generations: Sequence[Generation]) -> Iterator[bytes]:
    for row, generation in zip(rows, generations, strict=True):
        # The row's own name is a word of the data.
        name = {} if row.identifier is None else {"id": answerer.filters.redact_value(row.identifier)}
        answer = {
            "record_id": row.record_id,
            **name,
            "text": generation.text,
            "finish_reason": generation.finish_reason,
            "prompt_tokens": generation.prompt_token_count,
            "generated_tokens": generation.token_count,
            "prompt_redacted": generation.prompt_redacted,
            "text_redacted": generation.redacted,
        }
        yield (json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _report(answerer: Answerer, source: PromptFile, generations: Sequence[Generation]) -> dict[str, Any]:
    target, settings = answerer.target, answerer.config.generation
    bypasses = [] if answerer.bypass is None else [answerer.bypass.to_json()]
    return {
        "schema_version": 1,
        "codex_ml": version("codex-ml"),
        "input": {"name": source.path.name, "digest": source.digest, "bytes": source.byte_count},
        "model": {
            "checkpoint": target.shown,
            "weights": "averaged" if uses_average(target, settings.weights) else "last",
            "run_id": target.manifest.get("run_id"),
            "step": target.manifest.get("step"),
            "base_model_digest": answerer.base.digest,
            "tokenizer_digest": answerer.tokenizer_digest,
            "weight_digests": weight_digests(target, settings.weights),
            "device": answerer.base.device.value,
            "dtype": answerer.base.dtype.value,
        },
        "settings": settings.model_dump(mode="json"),
        "safety": safety_summary(answerer.filters, dict(answerer.audit.counts), bypasses),
        "rows": {
            "answered": len(generations),
            "prompts_redacted": sum(one.prompt_redacted for one in generations),
            "texts_redacted": sum(one.redacted for one in generations),
        },
        "finish_reasons": dict(sorted(Counter(one.finish_reason for one in generations).items())),
        "prompt_tokens": sum(one.prompt_token_count for one in generations),
        "generated_tokens": sum(one.token_count for one in generations),
    }


def _write(files: AnswerFile, report: dict[str, Any], lines: Iterator[bytes], storage: Storage) -> None:
    with staging(files.output, storage) as directory:
        made, made_report = directory / "made", directory / "report"
        with LineOutput(made, files.output, storage) as output:
            for line in lines:
                output.write(line)
            digest = output.finish()
            report["output"] = {"name": files.output.name, "digest": digest, "bytes": output.byte_count}
        storage.write_bytes(made_report, json_bytes(report))
        refuse_existing([("--output", files.output), ("--output", files.report)], overwrite=files.overwrite)
        # The output last: where it lies, its report does too.
        put_in_place(made_report, files.report, storage)
        put_in_place(made, files.output, storage)


RESET = "/reset"


def answer_prompt(
    answerer: Answerer, prompt: str, write: Callable[[str], None], emit: Callable[[str], None]
) -> Generation:
    """Answer one prompt.

    Parameters
    ----------
    answerer : Answerer
        The model.
    prompt : str
        Given to the model as it is.
    write : callable
        Takes the answer piece by piece.
    emit : callable
        Takes what is said of it.

    Raises
    ------
    UserError
        If the prompt cannot be answered.
    """
    return _answer(answerer, prompt, "prompt", write, emit)


def hold_conversation(
    answerer: Answerer,
    turns: Iterable[str],
    write: Callable[[str], None],
    emit: Callable[[str], None],
    *,
    system: str | None = None,
) -> None:
    """Answer turn after turn, each with the conversation so far; ``/reset`` clears it, and an empty turn is skipped.

    Parameters
    ----------
    turns : iterable of str
        What the user says.
    system : str, optional
        System prompt.

    Raises
    ------
    UserError
        If there is no chat template, or a turn cannot be answered, as when the conversation has grown too long.
    """
    require_template(answerer)
    beginning = [] if system is None else [Message(role="system", content=system)]
    said = list(beginning)
    number = 0
    for turn in turns:
        STOP.check()
        if turn.strip() == RESET:
            said = list(beginning)
            emit("the conversation was cleared")
        elif turn.strip():
            number += 1
            said.append(Message(role="user", content=turn))
            answer = _answer(answerer, said, f"turn-{number}", write, emit)
            said.append(Message(role="assistant", content=answer.text))


def _answer(
    answerer: Answerer,
    prompt: str | list[Message],
    name: str,
    write: Callable[[str], None],
    emit: Callable[[str], None],
) -> Generation:
    try:
        request = answerer.request(prompt, answerer.config.generation.seed)
    except ValueError as error:
        raise UserError(
            f"the {'prompt' if isinstance(prompt, str) else 'conversation'} cannot be answered",
            why=str(error),
            fix="shorten it, or lower generation.max_new_tokens"
            if isinstance(prompt, str)
            else f"clear the conversation with {RESET}, or lower generation.max_new_tokens",
            code="GENERATION_PROMPT_REFUSED",
        ) from error
    last_character = "\n"
    result: Generation | None = None
    for piece in answerer.stream(request, name):
        if isinstance(piece, Generation):
            result = piece
        else:
            write(piece)
            last_character = piece[-1]
    assert result is not None, "a stream ends with its result"
    if last_character != "\n" or not result.text:
        write("\n")
    for line in remarks(result):
        emit(line)
    return result


def remarks(generation: Generation) -> list[str]:
    """Return what the user should know of an answer beyond its text; rules by name, never what they matched."""
    lines = []
    if generation.prompt_redacted and generation.finish_reason == "blocked" and not generation.token_count:
        lines.append(f"warning: the safety policy blocks the prompt ({_rules(generation.prompt_findings)})")
        return lines
    if generation.prompt_redacted:
        lines.append(f"warning: the safety policy changed the prompt ({_rules(generation.prompt_findings)})")
    if generation.finish_reason == "blocked":
        lines.append(f"warning: the safety policy blocks the answer ({_rules(generation.output_findings)})")
    elif generation.redacted:
        lines.append(f"warning: the safety policy changed the answer ({_rules(generation.output_findings)})")
    if generation.finish_reason == "length":
        lines.append(f"the answer was cut at {generation.token_count} tokens (generation.max_new_tokens)")
    return lines


def _rules(findings: Iterable[object]) -> str:
    names = sorted({str(getattr(finding, "rule_id", "?")) for finding in findings})
    return f"rule {', '.join(names)}" if names else "no rule named"
