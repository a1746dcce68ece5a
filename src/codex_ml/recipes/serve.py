"""The job of `serve`: a base model with adapters behind the HTTP service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from codex_ml.config.paths import check_paths
from codex_ml.config.schema.root import ServeConfig
from codex_ml.data.records.chat import Message, MessagesRecord
from codex_ml.data.tokenization.encoding import PromptEncoder, PromptProcess
from codex_ml.data.tokenization.tokenizer import RecordTokenizer, answer_ends
from codex_ml.errors import ConfigError, ConfigProblem
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.generator import TextGenerator, maximum_positions
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece
from codex_ml.io.stopping import STOP
from codex_ml.models.directory import extra_tokenizer_digest
from codex_ml.models.registry import BaseModel, load_base_model, load_tokenizer, tokenizer_digest
from codex_ml.models.source import locate_tokenizer
from codex_ml.peft.adapter_files import AdapterSet
from codex_ml.recipes.answering import GenerateDependencies, GenerationLog
from codex_ml.recipes.inputs import BypassRecorder, bypass_warnings, open_filters, refuse_unsafe_values
from codex_ml.recipes.preparation import open_digests
from codex_ml.recipes.target_model import check_bases, check_tokenizers, refuse_missing_averages, weights_of
from codex_ml.runs.listing import Target
from codex_ml.safety.filters import SafetyAudit, SafetyFilters
from codex_ml.safety.streaming import StreamFilter
from codex_ml.serve.access import BearerToken, check_binding, is_loopback
from codex_ml.serve.app import build_app
from codex_ml.serve.engine import Engine, GenerationParams, Limits, Turn
from codex_ml.serve.server import Address, HttpServer
from codex_ml.serve.service import Service, ServiceLimits, ServiceMetrics

_DEFAULT_NEW_TOKENS = 256


class HostedModels:
    """What answers: each adapter under its name, and the base under its own.

    Parameters
    ----------
    config : ServeConfig
        Names and limits; `generation` is what a request leaves open.
    base : BaseModel
        On its device.
    adapters : mapping
        Name -> directory of an adapter.
    prompts : RecordTokenizer
        Makes tokens of prompts, as in training.
    filters : SafetyFilters
        The policy.
    audit : SafetyAudit
        Takes what is found.
    encoder : PromptEncoder
        Makes tokens of what clients send, as ``prompts`` does, within bounds.

    Raises
    ------
    CodexError
        If an adapter does not fit.
    """

    def __init__(
        self,
        config: ServeConfig,
        base: BaseModel,
        adapters: Mapping[str, Path],
        prompts: RecordTokenizer,
        filters: SafetyFilters,
        audit: SafetyAudit,
        encoder: PromptEncoder,
    ) -> None:
        self._config, self._prompts, self._filters, self._audit = config, prompts, filters, audit
        self._encoder = encoder
        self._adapters = AdapterSet(base.model, adapters)
        self._names = (config.serve.base_name, *adapters)
        self._positions = maximum_positions(base.model)
        self._stop_token_ids = answer_ends(prompts.tokenizer)

    def names(self) -> tuple[str, ...]:
        """Return the base, then the adapters."""
        return self._names

    def request(self, model: str, prompt: str | Sequence[Turn], params: GenerationParams) -> GenerationRequest:
        """Return the request for a prompt or a chat; the model's name does not matter for it.

        Raises
        ------
        ValueError
            If there is no chat template, the prompt is empty, or it leaves no room for its answer.
        """
        del model
        ids = self._encoder.encode_prompt(prompt) if isinstance(prompt, str) else self._encode_chat(prompt)
        settings = self._config.generation
        return GenerationRequest(
            ids,
            SamplingSettings(
                self._new_tokens(len(ids), params.max_new_tokens),
                settings.temperature if params.temperature is None else params.temperature,
                settings.top_k,
                settings.top_p if params.top_p is None else params.top_p,
                params.stop or settings.stop,
                settings.seed if params.seed is None else params.seed,
            ),
        )

    def stream(
        self, model: str, requests: Sequence[GenerationRequest], cancelled: Callable[[int], bool]
    ) -> Iterator[StreamedPiece]:
        """Answer requests with one of the models, behind the filters."""
        name = None if model == self._config.serve.base_name else model
        with self._adapters.using(name) as adapted:
            generator = TextGenerator(
                adapted,
                self._prompts.tokenizer,
                filter_prompt=self._filters.apply,
                filter_output=self._filters.apply,
                open_output_stream=partial(StreamFilter, self._filters),
                encode_text=self._encoder.encode_text,
                stop_token_ids=self._stop_token_ids,
            )
            yield from generator.stream(requests, cancelled=cancelled)

    def note(self, name: str, generation: Generation) -> None:
        """Write what the filters found to the audit."""
        for field, findings in (("prompt", generation.prompt_findings), ("output", generation.output_findings)):
            action = "block" if generation.finish_reason == "blocked" else "redact"
            self._audit.record(name, field, findings, action)

    def _encode_chat(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        if not self._prompts.tokenizer.chat_template:
            raise ValueError("this model has no chat template: use /v1/completions")
        messages = tuple(Message.model_validate({"role": turn.role, "content": turn.content}) for turn in turns)
        if messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's: there is nothing to answer")
        return self._encoder.encode_prompt(MessagesRecord(messages=messages))

    def _new_tokens(self, prompt_length: int, asked: int | None) -> int:
        room = None if self._positions is None else self._positions - prompt_length
        if room is not None and room < (asked or 1):
            raise ValueError(
                f"the prompt has {prompt_length} tokens, which leaves {max(room, 0)} of the {self._positions} "
                f"positions of the model for the answer, and {asked or 1} are needed"
            )
        if asked is not None:
            return asked
        default = self._config.generation.max_new_tokens or _DEFAULT_NEW_TOKENS
        most = min(default, self._config.serve.max_new_tokens)
        return most if room is None else min(most, room)


def serve(
    config: ServeConfig,
    targets: Mapping[str, Target],
    token: BearerToken | None,
    dependencies: GenerateDependencies | None = None,
) -> int | None:
    """Serve a base model and adapters over it until a signal asks for the end.

    Parameters
    ----------
    config : ServeConfig
        Address, bounds, base.
    targets : mapping
        Name -> checkpoint of an adapter.
    token : BearerToken or None
        What requests must show; required beyond loopback.

    Returns
    -------
    int or None
        The signal that cut answers short; None when all that was taken was answered.

    Raises
    ------
    CodexError
        If the service cannot be what was asked for; nothing listens then.
    """
    dependencies = dependencies or GenerateDependencies()
    check_binding(config.serve.host, token)
    check_paths(config, with_data=False)
    refuse_unsafe_values(config)
    _refuse_names(config, targets)
    filters = open_filters(config.safety)
    for line in bypass_warnings(filters):
        dependencies.emit(line)
    tokenizer = load_tokenizer(config.model)
    prompts = RecordTokenizer(tokenizer)
    # What a first chat imports and compiles is loaded before the fork, for all processes.
    answer_ends(tokenizer)
    checkpoints = list(targets.values())
    directory = locate_tokenizer(config.model).directory
    check_tokenizers(checkpoints, tokenizer_digest(tokenizer, directory), extra_tokenizer_digest(directory))
    refuse_missing_averages(checkpoints, config.generation.weights, "generation.weights")
    STOP.check()
    assert config.run.output_dir is not None, "composing a config fills run.output_dir in"
    with closing(PromptProcess(prompts)) as process, ExitStack() as stack:
        # Forked before the model is loaded, which starts threads and takes memory that the process does not need.
        process.start()
        base = load_base_model(config.model, tokenizer, config.run.seed, open_digests(config))
        check_bases(checkpoints, base)
        STOP.check()
        dependencies.emit(
            f"device {base.device.value}: {base.device.reason}; dtype {base.dtype.value}: {base.dtype.reason}"
        )
        log = stack.enter_context(
            GenerationLog(
                config.run.output_dir,
                config.logging.max_bytes,
                filters.redact_value,
                dependencies.clock,
                dependencies.storage,
            )
        )
        audit = SafetyAudit(log.write, stage="serve")
        if (bypass := BypassRecorder("serve", dependencies.who, dependencies.clock).bypass(filters)) is not None:
            audit.bypass(bypass)
        directories = {name: _directory(target, config) for name, target in targets.items()}
        models = HostedModels(config, base, directories, prompts, filters, audit, process)
        server = _server(config, models, token)
        # The server handles signals itself from here on.
        STOP.check()
        dependencies.emit(f"models: {', '.join(models.names())}")
        return server.run(lambda: dependencies.emit(f"serving on http://{_shown(config.serve.host)}:{server.port}"))


def _server(config: ServeConfig, models: HostedModels, token: BearerToken | None) -> HttpServer:
    section = config.serve
    metrics = ServiceMetrics()
    engine = Engine(models, Limits(section.max_running, section.max_waiting, section.request_timeout_seconds), metrics)
    metrics.watch(lambda: engine.waiting, lambda: engine.running)
    limits = ServiceLimits(
        section.max_body_bytes,
        section.body_timeout_seconds,
        section.request_timeout_seconds,
        section.send_timeout_seconds,
        section.max_new_tokens,
    )
    app = build_app(
        Service(engine, models.names(), limits, time.time),
        engine,
        metrics,
        token=token,
        loopback_only=is_loopback(section.host),
        allowed_origins=section.allowed_origins,
        clock=time.monotonic,
    )
    return HttpServer(
        app,
        engine,
        Address(section.host, section.port),
        most_requests=section.max_running + section.max_waiting,
        grace_seconds=section.grace_seconds,
        head_seconds=section.head_timeout_seconds,
        send_seconds=section.send_timeout_seconds,
    )


def _directory(target: Target, config: ServeConfig) -> Path:
    directory = weights_of(target, config.generation.weights)
    assert directory is not None, "only checkpoints have a name of their own"
    return directory


def _refuse_names(config: ServeConfig, targets: Mapping[str, Target]) -> None:
    """Stop where two models would have one name, or a checkpoint is no adapter."""
    problems = []
    if config.serve.base_name in targets:
        problems.append(
            ConfigProblem(
                "serve.base_name",
                f"an adapter is called {config.serve.base_name}, too",
                "give the base or the adapter another name",
            )
        )
    for name, target in targets.items():
        if target.directory is not None and target.manifest.get("kind") != "adapter":
            problems.append(
                ConfigProblem(
                    f"--adapter {name}",
                    f"{target.shown} holds all weights of a model and no adapter",
                    "serve it as the base: --model DIRECTORY",
                )
            )
    if problems:
        raise ConfigError(problems)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
