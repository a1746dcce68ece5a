"""Answers to prompts from a base model or a checkpoint, with the log of what was generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import GenerateConfig
from codex_ml.data.records.chat import Message, MessagesRecord
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from codex_ml.errors import UserError
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator, maximum_positions
from codex_ml.generation.requests import Generation, GenerationRequest
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import utc_now
from codex_ml.io.stopping import STOP
from codex_ml.models.directory import extra_tokenizer_digest
from codex_ml.models.registry import BaseModel, load_base_model, load_tokenizer, tokenizer_digest
from codex_ml.models.source import locate_tokenizer
from codex_ml.monitoring.codex_logging import NdjsonWriter
from codex_ml.recipes.inputs import BypassRecorder, bypass_warnings, emit, open_filters, refuse_unsafe_values, user_name
from codex_ml.recipes.preparation import open_digests
from codex_ml.recipes.target_model import check_bases, check_tokenizers, model_of, refuse_missing_averages
from codex_ml.runs.listing import Target
from codex_ml.safety.filters import Bypass, SafetyAudit, SafetyFilters
from codex_ml.safety.streaming import StreamFilter

DIRECTORY = "generation"


class GenerationLog:
    """Events of one process, in a file of its own below where the runs lie; use it as a context manager.

    Parameters
    ----------
    output_dir : Path
        Where the runs lie.
    max_bytes : int
        Size at which the file is rotated.
    redact : callable
        Gets an event and returns what may be written.
    clock : callable
        Gives the time.
    storage : Storage
        The disk.
    """

    def __init__(
        self,
        output_dir: Path,
        max_bytes: int,
        redact: Callable[[Any], Any],
        clock: Callable[[], datetime],
        storage: Storage,
    ) -> None:
        self._directory = output_dir / DIRECTORY
        self._max_bytes, self._redact, self._clock, self._storage = max_bytes, redact, clock, storage
        self._writer: NdjsonWriter | None = None

    def __enter__(self) -> GenerationLog:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._writer is not None:
            self._writer.close()

    @property
    def path(self) -> Path | None:
        """The file; None as long as there was nothing to write."""
        return None if self._writer is None else self._writer.path

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event."""
        if self._writer is None:
            self._storage.make_directory(self._directory)
            name = f"events-{self._clock():%Y%m%dT%H%M%SZ}-{os.getpid()}.ndjson"
            self._writer = NdjsonWriter(
                self._directory / name,
                self._max_bytes,
                redact=self._redact,
                clock=self._clock,
                storage=self._storage,
            )
        self._writer.write(event)


_DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class GenerateDependencies:
    """What the jobs that generate use of the outside world; tests pass others."""

    storage: Storage = field(default_factory=Storage)
    emit: Callable[[str], None] = emit
    clock: Callable[[], datetime] = utc_now
    who: Callable[[], str] = user_name


class Answerer:
    """Answers prompts and conversations with one model.

    Parameters
    ----------
    config : GenerateConfig
        Limits and sampling.
    target : Target
        What answers.
    base : BaseModel
        What it stands on.
    generator : TextGenerator
        The model behind the filters.
    prompts : RecordTokenizer
        Makes tokens of prompts, as in training.
    tokenizer_digest : str
        Of the tokenizer.
    filters : SafetyFilters
        The policy.
    bypass : Bypass or None
        That the filters are off, where they are.
    log : GenerationLog
        Takes what the filters find.
    """

    def __init__(
        self,
        config: GenerateConfig,
        target: Target,
        base: BaseModel,
        generator: TextGenerator,
        prompts: RecordTokenizer,
        tokenizer_digest: str,
        filters: SafetyFilters,
        bypass: Bypass | None,
        log: GenerationLog,
    ) -> None:
        self.config, self.target, self.base = config, target, base
        self.generator, self.prompts, self.tokenizer_digest = generator, prompts, tokenizer_digest
        self.filters, self.bypass, self.log = filters, bypass, log
        self.audit = SafetyAudit(log.write, stage="generation")
        self.positions = maximum_positions(base.model)

    def request(self, prompt: str | Sequence[Message], seed: int) -> GenerationRequest:
        """Return the request for a prompt or a conversation.

        Raises
        ------
        ValueError
            If it cannot be encoded, or leaves no room for the answer that is asked for.
        """
        if isinstance(prompt, str):
            # A tokenizer without a begin token has no empty prompt; the generator puts its end token there.
            ids = self.prompts.encode_prompt(prompt) if prompt else self._empty_prompt()
        else:
            ids = self.prompts.encode_prompt(MessagesRecord(messages=tuple(prompt)))
        settings = self.config.generation
        return GenerationRequest(
            ids,
            SamplingSettings(
                self._new_tokens(len(ids)), settings.temperature, settings.top_k, settings.top_p, settings.stop, seed
            ),
        )

    def stream(self, request: GenerationRequest, name: str) -> Iterator[str | Generation]:
        """Yield an answer piece by piece, and at its end the whole result; what the filters found is in the log."""
        for piece in self.generator.stream([request]):
            if piece.text:
                yield piece.text
            if piece.generation is not None:
                self.note(piece.generation, name)
                yield piece.generation

    def note(self, generation: Generation, name: str) -> None:
        """Write what the filters found in a prompt and its answer to the log."""
        action = "block" if generation.finish_reason == "blocked" else "redact"
        prompt_action = action if not generation.token_count else "redact"
        self.audit.record(name, "prompt", generation.prompt_findings, prompt_action)
        self.audit.record(name, "output", generation.output_findings, action)

    def _new_tokens(self, prompt_length: int) -> int:
        room = None if self.positions is None else self.positions - prompt_length
        asked = self.config.generation.max_new_tokens
        if asked is None:
            if room is not None and room < 1:
                raise ValueError(
                    f"the prompt has {prompt_length} tokens, and the model {self.positions} positions for it and the "
                    "answer together"
                )
            return _DEFAULT_NEW_TOKENS if room is None else min(_DEFAULT_NEW_TOKENS, room)
        if room is not None and asked > room:
            raise ValueError(
                f"the prompt has {prompt_length} tokens, and of the {self.positions} positions of the model not "
                f"{asked} are left for the answer (generation.max_new_tokens)"
            )
        return asked

    def _empty_prompt(self) -> tuple[int, ...]:
        try:
            return self.prompts.encode_prompt("")
        except ValueError:
            return ()


@contextmanager
def open_answerer(
    config: GenerateConfig, target: Target, dependencies: GenerateDependencies | None = None
) -> Iterator[Answerer]:
    """Load what answers, after every check that needs no weights.

    Raises
    ------
    CodexError
        Of the kind that fits: configuration, model, checkpoint, safety.
    """
    dependencies = dependencies or GenerateDependencies()
    check_paths(config, with_data=False)
    refuse_unsafe_values(config)
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    filters = open_filters(config.safety)
    for line in bypass_warnings(filters):
        dependencies.emit(line)
    bypass = BypassRecorder("generate", dependencies.who, dependencies.clock).bypass(filters)
    tokenizer = load_tokenizer(config.model)
    directory = locate_tokenizer(config.model).directory
    digest = tokenizer_digest(tokenizer, directory)
    check_tokenizers([target], digest, extra_tokenizer_digest(directory))
    refuse_missing_averages([target], config.generation.weights, "generation.weights")
    STOP.check()
    digests = open_digests(config)
    base = load_base_model(config.model, tokenizer, config.run.seed, digests)
    check_bases([target], base)
    STOP.check()
    dependencies.emit(
        f"device {base.device.value}: {base.device.reason}; dtype {base.dtype.value}: {base.dtype.reason}"
    )
    with (
        GenerationLog(
            config.run.output_dir,
            config.logging.max_bytes,
            filters.redact_value,
            dependencies.clock,
            dependencies.storage,
        ) as log,
        model_of(target, config.generation.weights, base) as model,
    ):
        generator = TextGenerator(
            model,
            tokenizer,
            filter_prompt=filters.apply,
            filter_output=filters.apply,
            open_output_stream=partial(StreamFilter, filters),
        )
        answerer = Answerer(config, target, base, generator, RecordTokenizer(tokenizer), digest, filters, bypass, log)
        if bypass is not None:
            answerer.audit.bypass(bypass)
        yield answerer


def require_template(answerer: Answerer) -> None:
    """Stop where a conversation is asked for and nothing says how one is written.

    Raises
    ------
    UserError
        If the tokenizer has no chat template.
    """
    tokenizer: Any = answerer.prompts.tokenizer
    if not tokenizer.chat_template:
        raise UserError(
            f"--chat: {answerer.target.shown} has no chat template",
            why="its tokenizer does not say how the turns of a conversation are written",
            fix="use --prompt TEXT, or a model with a chat template",
        )
