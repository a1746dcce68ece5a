"""Judges the text pipeline of a tokenizer.json before a text goes through it: growth, expressions, panics."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.errors import CodexError, ModelError
from codex_ml.io.untrusted import MAX_MODEL_FILE_BYTES, UntrustedFileError, read_json, settings_of
from codex_ml.models.regex_shape import (
    RegexSyntaxError,
    ambiguous_part,
    parse,
    sample_characters,
    sample_repetitions,
)

# The longest expressions of known tokenizers have about 800 characters.
_MAX_EXPRESSION_CHARACTERS = 10_000
_MOST_EXPRESSIONS = 100
_LARGEST_GROWTH = 1000
_MOST_NAMED = 24
# Published tokenizers have 25 or fewer.
_MOST_RUNS = 400
_STEPS = ("normalizer", "pre_tokenizer", "decoder")
# Without the working directory on its path: a file in it may have the name of a library.
_PROBE = (sys.executable, "-P", "-m", "codex_ml.models.tokenizer_probe")
# Against a machine that hardly runs; the process bounds its own processor time.
_PROBE_WALL_SECONDS = 300
_FIX = "copy tokenizer.json again from its source, or use the tokenizer of a model that you trust"


def guard_tokenizer(file: Path, key: str) -> None:
    """Refuse a tokenizer whose steps multiply a text, or whose expressions can take exponential time.

    Raises
    ------
    ModelError
        With the step at fault. Nothing is run; see `probe_tokenizer`.
    """
    if not file.is_file():
        return
    values = _read(file, key)
    for step in _STEPS:
        if _growth(values.get(step)) > _LARGEST_GROWTH:
            raise ModelError(
                f"{key}: the {step} in {file} makes a text more than {_LARGEST_GROWTH} times as long",
                why="a short text would fill the memory",
                fix="copy tokenizer.json again from its source",
                code="TOKENIZER_REFUSED",
            )
        for number, (kind, pattern) in enumerate(_patterns(values.get(step))):
            if step == "decoder" and kind == "Regex":
                # Decoding runs in the process of the service, which an endless match would freeze.
                why: str | None = "its decoder replaces by a regular expression, which no known tokenizer does"
            else:
                why = _fault_of(kind, pattern, number)
            if why is not None:
                raise ModelError(f"{key}: the {step} in {file} is refused", why=why, fix=_FIX, code="TOKENIZER_REFUSED")


def probe_tokenizer(file: Path, key: str, command: tuple[str, ...] = _PROBE) -> None:
    """Try a tokenizer's steps on texts that make a bad one slow or panic, in a process that can be killed.

    Only steps that a file can make dangerous are tried: regular expressions, and character maps compiled by
    sentencepiece.

    Parameters
    ----------
    file : Path
        Its ``tokenizer.json``; one that is absent is nothing to try.
    key : str
        The setting that names it.
    command : tuple of str
        Starts the process.

    Raises
    ------
    ModelError
        With the step at fault.
    CodexError
        If the check itself could not be run.
    """
    if not file.is_file():
        return
    values = _read(file, key)
    expressions = [pattern for step in _STEPS for kind, pattern in _patterns(values.get(step)) if kind == "Regex"]
    has_map = any(name == "precompiled_charsmap" for step in _STEPS for _, name, _ in settings_of(values.get(step)))
    if not expressions and not has_map:
        return
    pipeline: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        **{step: values.get(step) for step in _STEPS},
        "post_processor": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    characters = dict.fromkeys(mark for one in expressions for mark in sample_characters(one, _MOST_NAMED))
    runs = list(dict.fromkeys(run for one in expressions for run in _runs(one)))
    if len(runs) > _MOST_RUNS:
        why = f"its expressions repeat {len(runs)} different texts, and {_MOST_RUNS} at most are tried"
        raise ModelError(f"{key}: the tokenizer in {file} is refused", why=why, fix=_FIX, code="TOKENIZER_REFUSED")
    asked = {"pipeline": pipeline, "characters": list(characters)[:_MOST_NAMED], "runs": runs}
    verdict = _verdict(json.dumps(asked, sort_keys=True), command)
    if verdict is not None:
        raise ModelError(f"{key}: the tokenizer in {file} is refused", why=verdict, fix=_FIX, code="TOKENIZER_REFUSED")


@functools.lru_cache(maxsize=32)
def _verdict(question: str, command: tuple[str, ...] = _PROBE) -> str | None:
    """Return what is wrong with a pipeline, asked of a process that imports only the library of the tokenizers."""
    try:
        done = subprocess.run(
            command,
            input=question.encode(),
            stdout=subprocess.PIPE,
            # The message of a panic may quote a text, and is no line of ours.
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_WALL_SECONDS,
            check=False,
        )
    except OSError as error:
        raise _not_run(f"its process cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        return f"trying it took more than {_PROBE_WALL_SECONDS} seconds"
    if done.returncode < 0:
        return f"trying it took too much time or memory (the process ended with signal {-done.returncode})"
    try:
        verdict: str | None = json.loads(done.stdout)
    except ValueError:
        raise _not_run(f"the process that checks it ended with exit code {done.returncode} and no answer") from None
    return verdict


def _not_run(why: str) -> CodexError:
    """Return the error for a check that says nothing about the tokenizer: the machine, or the installation, fails."""
    return CodexError(
        "the check of the tokenizer could not be run",
        why=why,
        fix="check the memory and the number of processes (ulimit -v, ulimit -u) of this machine, and run it again",
        code="TOKENIZER_CHECK_NOT_RUN",
    )


def _growth(step: Any) -> int:
    """Return how many times as long a step can make a text, by the texts that it writes for a character."""
    growth = 1
    for _, setting, value in settings_of(step):
        if setting in ("content", "prepend") and isinstance(value, str):
            growth = min(growth * max(1, len(value)), _LARGEST_GROWTH + 1)
    return growth


def _runs(expression: str) -> list[tuple[str, str]]:
    try:
        return sample_repetitions(parse(expression))
    except RegexSyntaxError:
        return [("", word) for word in re.findall(r"\w+", expression)]


def _fault_of(kind: str, pattern: str, number: int) -> str | None:
    if not pattern:
        return "a pattern is empty, which matches everywhere and makes the library panic"
    if number >= _MOST_EXPRESSIONS:
        return f"it has more than {_MOST_EXPRESSIONS} patterns"
    if len(pattern) > _MAX_EXPRESSION_CHARACTERS:
        return f"a pattern has {len(pattern)} characters, and at most {_MAX_EXPRESSION_CHARACTERS} are taken"
    if kind != "Regex":
        return None
    try:
        part = ambiguous_part(parse(pattern))
    except RegexSyntaxError:
        return None  # the library that compiles it says so
    if part is None:
        return None
    return f"its expression {pattern[:80]!r} takes exponential time: {part[:40]!r} matches one text in many ways"


def _read(file: Path, key: str) -> dict[str, Any]:
    """Return the steps of a tokenizer.json; one file is parsed once, as long as it does not change."""
    try:
        status = file.stat()
        return steps_of(file, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except (UntrustedFileError, OSError) as error:
        raise ModelError(
            f"{key}: the tokenizer in {file.parent} cannot be read",
            why=f"{file.name}: {error}",
            fix="copy the tokenizer files again from their source",
            code="TOKENIZER_UNREADABLE",
        ) from error


@functools.lru_cache(maxsize=8)
def steps_of(file: Path, version: tuple[int, ...]) -> dict[str, Any]:
    """Return the steps of a tokenizer.json without its vocabulary, which is large.

    Parameters
    ----------
    file : Path
        The file.
    version : tuple of int
        What `os.stat` tells of it: another one is another file.

    Raises
    ------
    UntrustedFileError, OSError
        See `codex_ml.io.untrusted.read_json`.
    """
    del version
    values = read_json(file, MAX_MODEL_FILE_BYTES, strict=False)
    return {step: values.get(step) for step in _STEPS} if isinstance(values, dict) else {}


def _patterns(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the kind (``Regex`` or ``String``) and text of every pattern in a step."""
    for _, name, item in settings_of(value):
        if name == "pattern" and isinstance(item, dict):
            yield from ((kind, text) for kind, text in item.items() if isinstance(text, str))
        elif name == "pattern" and isinstance(item, str):
            yield "String", item
